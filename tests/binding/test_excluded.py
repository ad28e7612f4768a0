"""What EXCLUDE names is on no instance, and reading it there is an error and never a query that nobody asked for.

The error is a ``FieldError`` whatever the Django; 6.1 has a subclass of it for the purpose.
"""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from typing import Any

import pytest
from django.core.exceptions import FieldError
from django.db import connection
from django.db.models import Model
from django.test.utils import CaptureQueriesContext

from django_walsignals.binding.deferred import GuardedAttribute
from django_walsignals.binding.plan import stored_name
from django_walsignals.delivery.letters import shown_diff
from django_walsignals.models import DeadLetter
from django_walsignals.testing import make_change
from tests.binding import models as m
from tests.binding.conftest import MakeTables
from tests.processes import ROOT, environment
from tests.streams import Stream

pytestmark = pytest.mark.integration


@pytest.fixture
def keyless(stream: Stream, tables: MakeTables) -> Stream:
    """Give a stream of a table whose ``code`` is excluded."""
    tables(m.Keyless)
    stream.configure(EXCLUDE={"testapp.Keyless": ["code"]})
    stream.listen(m.Keyless)
    stream.set_up()
    return stream


def updated(stream: Stream) -> m.Keyless:
    """Give the instance of an update of a row that is still there."""
    m.Keyless.objects.create(code="secret", other=1, big="b")
    m.Keyless.objects.update(other=2)
    instance: m.Keyless = stream.consume()[-1].instance
    return instance


def assert_refused(instance: Model, attribute: str, message: str) -> None:
    """Read an attribute, to be refused without a query."""
    with (
        CaptureQueriesContext(
            connection,
        ) as queries,
        pytest.raises(FieldError, match=message),
    ):
        getattr(instance, attribute)
    assert len(queries) == 0


def test_reading_it_is_an_error_that_says_how_to_read_it(keyless: Stream) -> None:
    instance = updated(keyless)
    assert_refused(
        instance,
        "code",
        r"^Keyless\.code is excluded: EXCLUDE in the setting WALSIGNALS names it.*use Keyless\.objects\.get\(pk=…\)",
    )
    assert instance.other == 2


def test_the_row_before_and_the_row_that_was_refuse_it_too(keyless: Stream) -> None:
    m.Keyless.objects.create(code="secret")
    m.Keyless.objects.update(code="new secret")
    m.Keyless.objects.all().delete()
    inserted, changed, deleted = keyless.consume()
    for instance in (inserted.instance, changed.instance, changed.old, deleted.instance, deleted.old):
        assert_refused(instance, "code", "is excluded")
        assert "secret" not in f"{vars(instance)} {instance!r} {instance}"
        assert instance.get_deferred_fields() == {"code"}


def test_a_copy_refuses_it_too(keyless: Stream) -> None:
    instance = updated(keyless)
    pickled = pickle.dumps(instance)
    assert b"secret" not in pickled
    for twin in (pickle.loads(pickled), copy.copy(instance), copy.deepcopy(instance)):
        assert twin == instance and hash(twin) == hash(instance)
        assert_refused(twin, "code", "is excluded")


def test_a_process_that_has_no_consumer_refuses_it_too(keyless: Stream) -> None:
    """What guards the attribute comes with the instance."""
    pickled = pickle.dumps(updated(keyless))
    code = (
        "import django, pickle, sys\n"
        "django.setup()\n"
        "from django.core.exceptions import FieldError\n"
        "from tests.binding import models\n"
        f"instance = pickle.loads({pickled!r})\n"
        "try:\n    instance.code\nexcept FieldError as exc:\n    print(exc)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Keyless.code is excluded" in done.stdout, done.stderr


def test_asked_for_by_name_it_is_fetched(keyless: Stream) -> None:
    instance = updated(keyless)
    instance.refresh_from_db(fields=["code"])
    assert instance.code == "secret"


def test_refreshing_the_rest_leaves_it_out(keyless: Stream) -> None:
    instance = updated(keyless)
    m.Keyless.objects.update(other=3)
    instance.refresh_from_db()
    assert instance.other == 3
    assert_refused(instance, "code", "is excluded")


def test_saving_does_not_touch_it(keyless: Stream) -> None:
    instance = updated(keyless)
    instance.other = 7
    instance.save()
    instance.big = "c"
    instance.save(update_fields=["big"])
    row = m.Keyless.objects.get()
    assert (row.code, row.other, row.big) == ("secret", 7, "c")
    assert_refused(instance, "code", "is excluded")


def test_what_is_assigned_is_read_and_saved(keyless: Stream) -> None:
    instance = updated(keyless)
    instance.code = "mine"
    assert instance.code == "mine"
    instance.save()
    assert m.Keyless.objects.get().code == "mine"


def test_writing_the_whole_row_elsewhere_is_refused_and_not_done_in_part(keyless: Stream) -> None:
    instance = updated(keyless)
    instance.pk = None
    with pytest.raises(FieldError, match="is excluded"):
        instance.save(force_insert=True)
    assert m.Keyless.objects.count() == 1


def test_instances_that_a_query_made_are_as_ever(keyless: Stream) -> None:
    updated(keyless)
    assert m.Keyless.objects.get().code == "secret"
    deferred = m.Keyless.objects.defer("code").get()
    assert deferred.code == "secret", "its own query asks for it"
    assert m.Keyless(code="new").code == "new"
    assert m.Keyless().code == ""


def test_other_fields_that_are_not_known_say_so(keyless: Stream) -> None:
    """As without EXCLUDE: an error from Django 6.1 on, and a query before."""
    keyless.configure(EXCLUDE={"testapp.Keyless": ["code"]}, REPLICA_IDENTITY="keep")
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE binding_identity REPLICA IDENTITY DEFAULT")
    updated(keyless)
    m.Keyless.objects.all().delete()
    old = keyless.one("delete").instance
    assert_refused(old, "code", "is excluded")
    with pytest.raises((FieldError, m.Keyless.DoesNotExist), match=r"unknown|does not exist"):
        _ = old.other


def test_a_foreign_key_is_refused_by_either_name(stream: Stream, tables: MakeTables) -> None:
    tables(m.Target, m.CoreFields)
    stream.configure(EXCLUDE={"testapp.CoreFields": ["foreign"]})
    stream.listen(m.CoreFields)
    stream.set_up()
    target = m.Target.objects.create(code="secret")
    m.CoreFields.objects.create(foreign=target)
    instance = stream.one().instance
    assert_refused(instance, "foreign", "CoreFields.foreign_id is excluded")
    assert_refused(instance, "foreign_id", "CoreFields.foreign_id is excluded")
    instance.foreign = target
    assert instance.foreign_id == target.pk, "the attribute still takes a value, as a foreign key's does"


def test_a_child_refuses_what_its_parents_table_has(stream: Stream, tables: MakeTables) -> None:
    """Its own table holds nothing of it: reading it would ask for today's row of the parent."""
    tables(m.Place, m.Restaurant)
    stream.configure(EXCLUDE={"testapp.Place": ["name"]})
    stream.listen(m.Place, m.Restaurant)
    stream.set_up()
    m.Restaurant.objects.create(name="secret", stars=1)
    place, restaurant = stream.consume()
    assert_refused(place.instance, "name", r"^Place\.name is excluded")
    assert_refused(restaurant.instance, "name", r"^Restaurant\.name is excluded")
    assert restaurant.instance.stars == 1
    assert m.NamedPlace.objects.get().name == "secret"


def test_what_a_proxy_or_a_child_names_is_refused_on_the_parent(stream: Stream, tables: MakeTables) -> None:
    tables(m.Place, m.Restaurant)
    stream.configure(EXCLUDE={"testapp.Restaurant": ["name"]})
    stream.listen(m.Place)
    stream.set_up()
    m.NamedPlace.objects.create(name="secret")
    assert_refused(stream.one().instance, "name", r"^Place\.name is excluded")


def test_a_key_can_be_excluded(keyless: Stream) -> None:
    keyless.configure(EXCLUDE={"testapp.Keyless": ["id"]})
    m.Keyless.objects.create(code="a")
    change = keyless.one()
    assert "pk=UNKNOWN" in repr(change)
    assert_refused(change.instance, "pk", "Keyless.id is excluded")
    assert change.instance.code == "a"


def test_a_column_of_another_name_is_excluded_by_its_fields_name(stream: Stream, tables: MakeTables, undo: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute('CREATE SCHEMA "Odd Schema"')
    undo('DROP SCHEMA "Odd Schema" CASCADE')
    tables(m.OddNames)
    stream.configure(EXCLUDE={"testapp.OddNames": ["weird", "quoted", "long"]})
    stream.listen(m.OddNames)
    stream.set_up()
    secrets = {"weird": "secret", "quoted": "secret", "long": "secret"}
    m.OddNames.objects.create(größe=1, emoji="e", reserved="r", **secrets)
    instance = stream.one().instance
    for name in secrets:
        assert_refused(instance, name, f"OddNames.{name} is excluded")
    assert (instance.größe, instance.emoji, instance.reserved) == (1, "e", "r")


def test_a_letter_that_can_not_be_decoded_leaves_it_out_whatever_its_columns_are_called(stream: Stream) -> None:
    stream.configure(EXCLUDE={"testapp.OddNames": ["weird", "quoted", "long"]})
    columns = [stored_name(str(m.OddNames._meta.get_field(name).column)) for name in ("weird", "quoted", "long")]
    payload = {"old": None, "new": {"select": "shown", **dict.fromkeys(columns, "secret")}}
    letter = DeadLetter(stream="default", model="testapp.OddNames", operation="insert", payload=payload)
    assert shown_diff(letter) == ([("select", "", "shown")], True)


def test_a_change_made_for_a_test_refuses_it_too(keyless: Stream) -> None:
    change = make_change(m.Keyless(id=1, code="secret"))
    assert_refused(change.instance, "code", "is excluded")


def test_a_model_without_excluded_fields_is_left_as_it_is(stream: Stream, tables: MakeTables) -> None:
    tables(m.Tag)
    stream.listen(m.Tag)
    stream.set_up()
    m.Tag.objects.create(name="a")
    instance = stream.one().instance
    assert not any(isinstance(attribute, GuardedAttribute) for attribute in vars(m.Tag).values())
    assert "walsignals_excluded" not in vars(instance._state)
