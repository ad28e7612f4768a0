"""Tables change while their changes wait in the WAL, and code changes over them: the row as it was then counts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from django.apps import apps
from django.core.management import CommandError
from django.db import connection, models, transaction
from django.db.models import Model

from django_walsignals.changes import FieldDiff
from django_walsignals.signals import post_wal_change
from tests.binding.conftest import run_sql
from tests.binding.models import OnDemand
from tests.streams import Stream

pytestmark = pytest.mark.integration

Deploy = Callable[..., type[Model]]


@pytest.fixture
def deploy(stream: Stream, undo: Callable[[str], None]) -> Iterator[Deploy]:
    """Return a function that deploys code: the one model `Deployed` of the table, with these fields from now on.

    The model of the deployment before is taken out of Django's registry, as a restart with other code would.
    """
    deployed: list[type[Model]] = []  # kept, so that no id of theirs comes again

    def remove() -> None:
        apps.all_models["testapp"].pop("deployed", None)
        apps.clear_cache()

    def deploy(**fields: models.Field) -> type[Model]:
        remove()
        options = type("Meta", (OnDemand.Meta,), {"db_table": "binding_deployed"})
        key = models.BigAutoField(primary_key=True)
        body = {"__module__": __name__, "__qualname__": "Deployed", "id": key, "Meta": options}
        deployed.append(type("Deployed", (OnDemand,), body | fields))
        stream.listen(deployed[-1])
        return deployed[-1]

    undo("DROP TABLE IF EXISTS binding_deployed CASCADE")
    run_sql("CREATE TABLE binding_deployed (id bigserial PRIMARY KEY, name text NOT NULL DEFAULT '', amount integer)")
    yield deploy
    remove()


def name() -> models.Field:
    return models.TextField(default="")


def amount() -> models.Field:
    return models.IntegerField(null=True)


def insert(**values: Any) -> None:
    columns = ", ".join(f'"{column}"' for column in values)
    run_sql(f"INSERT INTO binding_deployed ({columns}) VALUES ({', '.join(['%s'] * len(values))})", *values.values())


def alter(action: str) -> None:
    run_sql(f"ALTER TABLE binding_deployed {action}")


def test_a_column_added_by_a_migration_that_ran_first_is_ignored_and_then_known(stream: Stream, deploy: Deploy) -> None:
    deploy(name=name(), amount=amount())
    stream.set_up()
    insert(name="before")
    alter("ADD COLUMN colour text NOT NULL DEFAULT 'red'")
    insert(name="after", colour="blue")
    run_sql("UPDATE binding_deployed SET colour = 'green' WHERE name = 'after'")
    before, after, updated = stream.consume()
    assert before.instance.name == "before" and after.instance.name == "after"
    assert before.unknown_fields == after.unknown_fields == frozenset()
    assert after.diff.keys() == {"id", "name", "amount"}
    assert updated.diff == {}, "a column that no field has is no difference"
    insert(name="waiting", colour="black")
    deploy(name=name(), amount=amount(), colour=models.TextField(default=""))
    insert(name="new", colour="white")
    waiting, new = stream.consume()
    assert (waiting.instance.colour, new.instance.colour) == ("black", "white")


def test_a_field_deployed_before_its_column_is_unknown_until_the_column_is_there(
    stream: Stream, deploy: Deploy
) -> None:
    deploy(name=name())
    stream.set_up()
    insert(name="old code")
    deploy(name=name(), colour=models.TextField(default=""))
    insert(name="no column yet")
    run_sql("UPDATE binding_deployed SET name = 'x' WHERE name = 'old code'")
    alter("ADD COLUMN colour text NOT NULL DEFAULT 'red'")
    insert(name="column", colour="blue")
    run_sql("UPDATE binding_deployed SET name = 'y' WHERE name = 'x'")
    old, without, updated, with_column, later = stream.consume()
    for change in (old, without, updated):
        assert change.unknown_fields == change.instance.get_deferred_fields() == {"colour"}
        assert "colour" not in change.diff and "colour" not in change.changed_fields
        assert change.has_changed("colour"), "it may have"
    assert updated.diff == {"name": FieldDiff("old code", "x")}
    assert with_column.instance.colour == "blue" and with_column.unknown_fields == frozenset()
    assert later.instance.colour == "red", "the column's default, for a row from before"


def test_a_column_dropped_under_its_field_is_unknown_from_there_on(stream: Stream, deploy: Deploy) -> None:
    deploy(name=name(), amount=amount())
    stream.set_up()
    insert(name="a", amount=1)
    alter("DROP COLUMN amount")
    insert(name="b")
    run_sql("UPDATE binding_deployed SET name = 'c'")
    run_sql("DELETE FROM binding_deployed")
    first, second, *others = stream.consume()
    assert first.instance.amount == 1 and first.unknown_fields == frozenset()
    assert second.unknown_fields == second.instance.get_deferred_fields() == {"amount"}
    assert [change.unknown_fields for change in others] == [{"amount"}] * 4
    assert others[0].diff == {"name": FieldDiff("a", "c")}
    assert others[-1].instance.name == "c"


def test_a_filter_by_a_dropped_column_hears_of_each_update_and_says_so(
    stream: Stream, deploy: Deploy, caplog: pytest.LogCaptureFixture
) -> None:
    model = deploy(name=name(), amount=amount())
    heard: list[Any] = []

    def receive(change: Any, **kwargs: Any) -> None:
        heard.append(change)

    post_wal_change.connect(receive, sender=model, fields=["amount"], operations=["update"], dispatch_uid="filtered")
    stream.set_up()
    insert(name="a", amount=1)
    run_sql("UPDATE binding_deployed SET name = 'b'")
    alter("DROP COLUMN amount")
    run_sql("UPDATE binding_deployed SET name = 'c'")
    with caplog.at_level(logging.WARNING):
        stream.consume()
    assert [change.instance.name for change in heard] == ["c"]
    assert [record for record in caplog.records if "amount" in record.getMessage()]


def test_a_field_removed_before_its_column_is_ignored(stream: Stream, deploy: Deploy) -> None:
    deploy(name=name(), amount=amount())
    stream.set_up()
    insert(name="a", amount=1)
    deploy(name=name())
    insert(name="b", amount=2)
    alter("DROP COLUMN amount")
    insert(name="c")
    changes = stream.consume()
    assert [change.instance.name for change in changes] == ["a", "b", "c"]
    assert [change.unknown_fields for change in changes] == [frozenset()] * 3


def test_a_renamed_column_is_unknown_under_the_other_name(stream: Stream, deploy: Deploy) -> None:
    deploy(name=name())
    stream.set_up()
    insert(name="old")
    alter("RENAME COLUMN name TO title")
    insert(title="new")
    old, new = stream.consume()
    assert old.instance.name == "old"
    assert new.unknown_fields == {"name"}
    insert(title="waiting")
    deploy(title=name())
    insert(title="x")
    assert [change.instance.title for change in stream.consume()] == ["waiting", "x"]


def test_code_that_knows_the_new_name_reads_rows_from_before_the_rename_without_it(
    stream: Stream, deploy: Deploy
) -> None:
    deploy(name=name())
    stream.set_up()
    insert(name="old")
    deploy(title=name())
    alter("RENAME COLUMN name TO title")
    insert(title="new")
    old, new = stream.consume()
    assert old.unknown_fields == {"title"} and old.pk == new.pk - 1
    assert new.instance.title == "new" and new.unknown_fields == frozenset()


def test_a_field_with_db_column_bridges_a_rename(stream: Stream, deploy: Deploy) -> None:
    deploy(name=name())
    stream.set_up()
    insert(name="a")
    deploy(title=models.TextField(default="", db_column="name"))
    insert(name="b")
    assert [change.instance.title for change in stream.consume()] == ["a", "b"]
    assert stream.changes[-1].has_changed("title")


def test_two_columns_that_swap_names_swap_values(stream: Stream, deploy: Deploy) -> None:
    deploy(name=name(), amount=amount())
    alter("ADD COLUMN other text")
    stream.set_up()
    insert(name="name", other="other")
    run_sql(
        "BEGIN; ALTER TABLE binding_deployed RENAME name TO t; ALTER TABLE binding_deployed RENAME other TO name;"
        "ALTER TABLE binding_deployed RENAME t TO other; COMMIT"
    )
    run_sql("UPDATE binding_deployed SET amount = 5")
    inserted, updated = stream.consume()
    assert inserted.instance.name == "name" and updated.instance.name == "other"
    assert updated.diff == {"amount": FieldDiff(None, 5)}


def test_each_row_is_decoded_by_the_type_its_column_had(stream: Stream, deploy: Deploy) -> None:
    deploy(amount=amount())
    stream.set_up()
    insert(amount=1)
    alter("ALTER COLUMN amount TYPE numeric(10, 2)")
    insert(amount=Decimal("2.50"))
    alter("ALTER COLUMN amount TYPE text")
    insert(amount="three")
    alter("ALTER COLUMN amount TYPE jsonb USING to_jsonb(amount)")
    insert(amount='{"n": 4}')
    deploy(amount=models.JSONField(null=True))
    insert(amount='{"n": 5}')
    deploy(amount=models.TextField(null=True))
    changes = stream.consume()
    assert [change.instance.amount for change in changes] == [1, Decimal("2.50"), "three", '{"n": 4}', '{"n": 5}']


def test_a_row_of_a_type_that_the_field_cannot_convert_is_not_passed_over(stream: Stream, deploy: Deploy) -> None:
    """New code, old WAL: its text is no JSON. The receiver fails, and the change is still there after it."""
    stream.configure(ON_ERROR="stop", MAX_ATTEMPTS=1)
    deploy(name=name())
    stream.set_up()
    insert(name="not JSON {")
    deploy(name=models.DateField(null=True))
    assert stream.one().instance.name == "not JSON {"
    insert(name="x")
    deploy(name=Strict(null=True))
    with pytest.raises(CommandError, match="can't convert 'x'"):
        stream.consume()
    deploy(name=name())
    assert stream.one().instance.name == "x"


class Strict(models.TextField):
    """A field that does not take what it does not know."""

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        raise LookupError(f"can't convert {value!r}")


def test_a_schema_change_in_the_middle_of_a_transaction_holds_from_there_on(stream: Stream, deploy: Deploy) -> None:
    deploy(name=name(), amount=amount(), colour=models.TextField(null=True))
    stream.set_up()
    with transaction.atomic():
        insert(name="1", amount=1)
        alter("ADD COLUMN colour text")
        insert(name="2", amount=2, colour="red")
        alter("RENAME COLUMN amount TO total")
        insert(name="3", total=3, colour="blue")
        alter("ALTER COLUMN total TYPE text")
        alter("RENAME COLUMN total TO amount")
        insert(name="4", amount="four", colour=None)
        alter("DROP COLUMN colour")
        insert(name="5", amount="five")
    changes = stream.consume()
    assert [change.ordinal for change in changes] == [1, 2, 3, 4, 5]
    assert len({change.transaction.xid for change in changes}) == 1
    assert [change.unknown_fields for change in changes] == [{"colour"}, set(), {"amount"}, set(), {"colour"}]
    assert [change.instance.__dict__.get("amount") for change in changes] == [1, 2, None, "four", "five"]
    assert [change.instance.__dict__.get("colour") for change in changes] == [None, "red", "blue", None, None]


def test_a_schema_change_that_is_rolled_back_changes_nothing(stream: Stream, deploy: Deploy) -> None:
    deploy(name=name(), amount=amount())
    stream.set_up()
    insert(name="1", amount=1)
    with transaction.atomic():
        alter("RENAME COLUMN amount TO total")
        insert(name="gone", total=2)
        transaction.set_rollback(True)
    insert(name="3", amount=3)
    assert [(change.instance.name, change.instance.amount) for change in stream.consume()] == [("1", 1), ("3", 3)]


def test_a_schema_change_while_the_consumer_runs_is_followed(stream: Stream, deploy: Deploy) -> None:
    """The DDL comes from elsewhere, between two batches of one session."""
    model = deploy(name=name(), amount=amount())
    steps = iter(
        [
            "ALTER TABLE binding_deployed ADD COLUMN colour text; INSERT INTO binding_deployed (name) VALUES ('2')",
            "ALTER TABLE binding_deployed DROP COLUMN amount; INSERT INTO binding_deployed (name) VALUES ('3')",
            "ALTER TABLE binding_deployed RENAME name TO other; INSERT INTO binding_deployed (other) VALUES ('4')",
            "ALTER TABLE binding_deployed RENAME other TO name; INSERT INTO binding_deployed (name) VALUES ('5')",
        ]
    )

    def change_the_table(**kwargs: Any) -> None:
        parameters = connection.get_connection_params()
        parameters = {key: value for key, value in parameters.items() if key not in ("context", "cursor_factory")}
        with psycopg.connect(autocommit=True, **parameters) as elsewhere:
            for statement in next(steps, "SELECT").split("; "):
                elsewhere.execute(statement)

    post_wal_change.connect(change_the_table, sender=model, dispatch_uid="elsewhere")
    stream.set_up()
    insert(name="1", amount=1)
    changes = stream.consume(until_lsn=None, max_changes=5)
    assert [change.unknown_fields for change in changes] == [set(), set(), {"amount"}, {"amount", "name"}, {"amount"}]
    assert [change.instance.__dict__.get("name") for change in changes] == ["1", "2", "3", None, "5"]


def test_all_columns_gone_but_the_key_leaves_the_key(stream: Stream, deploy: Deploy) -> None:
    deploy(name=name(), amount=amount())
    stream.set_up()
    alter("DROP COLUMN name, DROP COLUMN amount")
    run_sql("INSERT INTO binding_deployed DEFAULT VALUES")
    change = stream.one()
    assert change.pk == 1 and change.unknown_fields == {"name", "amount"}
    assert change.diff == {"id": FieldDiff(None, 1)}


def test_a_key_under_another_name_makes_the_pk_unknown_and_the_row_arrives(stream: Stream, deploy: Deploy) -> None:
    deploy(name=name())
    stream.set_up()
    alter("RENAME COLUMN id TO number")
    insert(name="x")
    change = stream.one()
    assert not change.pk and repr(change.pk) == "UNKNOWN"
    assert change.instance.name == "x" and change.unknown_fields == {"id"}
