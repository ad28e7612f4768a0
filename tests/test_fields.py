"""`LSNField`: a pg_lsn that is an `LSN` in Python, orders as positions do, and is text where there is no PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.apps.registry import Apps
from django.core import serializers
from django.core.exceptions import ValidationError
from django.db import connection, models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.sqlite3.base import DatabaseWrapper
from django.db.migrations.writer import MigrationWriter

from django_walsignals.fields import LSNField
from django_walsignals.models import Checkpoint
from django_walsignals.protocol.lsn import LSN, MAX_LSN

POSITIONS = [LSN(), LSN(9), LSN(0x10), LSN(2**32), LSN(MAX_LSN)]
field = LSNField()


class Position(models.Model):
    """A table of positions; made by hand where a test needs it."""

    lsn = LSNField(null=True, blank=True)

    class Meta:
        app_label = "testapp"
        apps = Apps()  # no other test sees it


def checkpoint(stream: str, lsn: Any) -> Checkpoint:
    return Checkpoint.objects.create(stream=stream, lsn=lsn, system_identifier="1", timeline=1, slot="s")


@pytest.mark.integration
@pytest.mark.django_db
class TestOnPostgreSQL:
    @pytest.mark.parametrize("lsn", POSITIONS)
    def test_a_position_comes_back_as_it_went(self, lsn: LSN) -> None:
        checkpoint("a", lsn)
        found = Checkpoint.objects.get()
        assert type(found.lsn) is LSN
        assert found.lsn == lsn
        assert Checkpoint.objects.values_list("lsn", "commit_lsn").get() == (lsn, LSN())

    @pytest.mark.parametrize("given", ["16/B374D848", "16/b374d848", 0x16_B374D848])
    def test_text_and_numbers_are_taken_too(self, given: object) -> None:
        checkpoint("a", given)
        assert Checkpoint.objects.get(lsn=given).lsn == LSN.parse("16/B374D848")

    def test_the_column_is_a_pg_lsn(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT atttypid::regtype::text FROM pg_attribute "
                "WHERE attrelid = 'walsignals_checkpoint'::regclass AND attname = 'lsn'"
            )
            assert cursor.fetchone() == ("pg_lsn",)

    def test_positions_order_as_numbers(self) -> None:
        for lsn in reversed(POSITIONS):
            checkpoint(f"at {lsn}", lsn)
        assert list(Checkpoint.objects.order_by("lsn").values_list("lsn", flat=True)) == POSITIONS
        assert Checkpoint.objects.aggregate(last=models.Max("lsn"))["last"] == POSITIONS[-1]

    def test_positions_compare_as_numbers(self) -> None:
        for lsn in POSITIONS:
            checkpoint(f"at {lsn}", lsn)
        assert Checkpoint.objects.filter(lsn__lt="0/10").count() == 2
        assert Checkpoint.objects.filter(lsn__gte=LSN(0x10)).count() == 3
        assert Checkpoint.objects.filter(lsn__in=[LSN(9), "0/10", 7]).count() == 2
        assert Checkpoint.objects.filter(lsn__range=(LSN(9), LSN(0x10))).count() == 2

    def test_an_update_compares_and_swaps(self) -> None:
        checkpoint("a", LSN(9))
        swap = Checkpoint.objects.filter(lsn=LSN(9))
        assert (swap.update(lsn=LSN(10)), swap.update(lsn=LSN(11))) == (1, 0)

    def test_what_is_no_position_is_refused_before_the_database_is_asked(self) -> None:
        with pytest.raises(ValidationError):
            Checkpoint.objects.filter(lsn="here").exists()

    @pytest.mark.parametrize("format_name", ["json", "xml"])
    def test_a_fixture_holds_it(self, format_name: str) -> None:
        checkpoint("a", POSITIONS[-1])
        text = serializers.serialize(format_name, Checkpoint.objects.all())
        Checkpoint.objects.all().delete()
        for each in serializers.deserialize(format_name, text):
            each.save()
        assert Checkpoint.objects.get().lsn == POSITIONS[-1]

    def test_null_is_none(self) -> None:
        with connection.schema_editor() as editor:
            editor.create_model(Position)
        made = Position.objects.create(lsn=None)
        made.refresh_from_db()
        assert made.lsn is None
        assert Position.objects.filter(lsn__isnull=True).exists()


class TestElsewhere:
    @pytest.fixture
    def sqlite(self, django_db_blocker: Any, tmp_path: Path) -> Iterator[BaseDatabaseWrapper]:
        engine = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "db.sqlite3"), "OPTIONS": {}}
        wrapper = DatabaseWrapper({**connection.settings_dict, **engine}, "elsewhere")
        with django_db_blocker.unblock():  # it needs no server
            yield wrapper
            wrapper.close()

    def test_the_column_is_text_long_enough_for_any_position(self, sqlite: BaseDatabaseWrapper) -> None:
        assert field.db_type(sqlite) == f"varchar({len(str(LSN(MAX_LSN)))})"

    def test_the_column_is_a_pg_lsn_on_postgresql(self) -> None:
        assert field.db_type(connection) == "pg_lsn"

    def test_the_table_can_be_made_and_read(self, sqlite: BaseDatabaseWrapper) -> None:
        with sqlite.cursor() as cursor:
            cursor.execute(f"CREATE TABLE t (lsn {field.db_type(sqlite)})")
            cursor.execute("INSERT INTO t VALUES (%s)", [field.get_db_prep_save(LSN(0x1_0000_0002), sqlite)])
            cursor.execute("SELECT lsn FROM t")
            assert field.from_db_value(cursor.fetchone()[0], None, sqlite) == LSN(0x1_0000_0002)


class TestValidation:
    @pytest.mark.parametrize("value", ["here", "", "0/0/0", -1, 2**64, 1.5, float("inf"), float("nan"), [], b"0/0"])
    def test_what_is_no_position_is_refused_with_an_example(self, value: object) -> None:
        with pytest.raises(ValidationError) as caught:
            field.to_python(value)
        assert caught.value.messages == [f"“{value}” is not a position in the WAL such as 16/B374D848."]
        assert caught.value.code == "invalid"

    def test_a_form_says_so(self) -> None:
        with pytest.raises(ValidationError) as caught:
            Position(lsn="here").full_clean()
        assert caught.value.message_dict == {"lsn": ["“here” is not a position in the WAL such as 16/B374D848."]}

    @pytest.mark.parametrize("value", [None, LSN(7)])
    def test_none_and_a_position_are_themselves(self, value: LSN | None) -> None:
        assert field.to_python(value) is value
        assert field.get_prep_value(value) == (None if value is None else "0/7")

    def test_it_is_written_into_migrations_without_arguments(self) -> None:
        written, imports = MigrationWriter.serialize(field)
        assert (written, imports) == ("django_walsignals.fields.LSNField()", {"import django_walsignals.fields"})
