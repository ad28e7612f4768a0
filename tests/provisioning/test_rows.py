"""ROWS: a `Q` becomes the publication's row filter, and one that PostgreSQL would refuse is refused before anything."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError
from django.db import connection
from django.db.models import BooleanField, Exists, F, Func, OuterRef, Q
from django.db.models.expressions import RawSQL
from django.db.models.functions import Now, Upper
from django.utils import timezone

from django_walsignals.provisioning.filters import compile_filter, is_as_published
from tests.provisioning.catalogue import consumer_role, execute, identity, publication, published
from tests.streams import Stream
from tests.testapp.models import Note

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _default_identity(transactional_db: None) -> None:
    execute("ALTER TABLE testapp_note REPLICA IDENTITY DEFAULT")
    execute("ALTER TABLE auth_user REPLICA IDENTITY DEFAULT")


def test_rows_that_do_not_meet_the_condition_never_leave_the_server(stream: Stream) -> None:
    stream.configure(ROWS={"testapp.Note": Q(text__startswith="a")})
    stream.listen(Note)
    stream.set_up()
    Note.objects.create(text="beta")
    note = Note.objects.create(text="alpha")
    note.text = "gone"  # it leaves what is published
    note.save()
    assert [(change.operation, change.instance.text) for change in stream.consume()] == [
        ("insert", "alpha"),
        ("delete", "alpha"),
    ]


def test_condition_is_no_change_at_the_next_start(stream: Stream) -> None:
    conditions = (
        Q(text="it's 100% {odd} \\"),
        Q(text__in=["a", "b"]),
        Q(text__contains="a%b") & ~Q(text="c"),
        Q(pk__lt=5) | Q(text__isnull=False),
    )
    stream.listen(Note)
    for condition in conditions:
        stream.configure(ROWS={"testapp.Note": condition})
        stream.set_up()
        stream.output.truncate(0)
        stream.set_up()
        assert "publication" not in stream.output.getvalue(), condition


def test_values_are_those_that_the_orm_would_compare_with(stream: Stream) -> None:
    stream.configure(ROWS={"testapp.Note": Q(text="it's 100% {odd} \\")})
    stream.listen(Note)
    stream.set_up()
    Note.objects.create(text="it's 100% {odd} \\")
    Note.objects.create(text="it's 100%% {odd} \\")
    assert len(stream.consume()) == 1


def test_columns_of_other_types_are_compared(stream: Stream) -> None:
    moment = timezone.now()
    stream.configure(ROWS={"auth.User": Q(is_active=True, date_joined__gte=moment, username__in=["ann", "bob"])})
    stream.listen(User)
    stream.set_up()
    User.objects.create(username="ann")
    User.objects.create(username="bob", is_active=False)
    User.objects.create(username="eve")
    assert [change.instance.username for change in stream.consume()] == ["ann"]
    stream.output.truncate(0)
    stream.set_up()
    assert "publication" not in stream.output.getvalue()


def test_one_of_several_values_and_none_of_them_mean_what_they_mean_in_a_query(stream: Stream) -> None:
    """The server takes no IN of a varchar column, which a CharField is: it must be said otherwise."""
    for name in ("ann", "bob", "eve", None):
        User.objects.create(username=name or "nobody", first_name=name or "")
    for condition in (
        Q(username__in=["ann", "bob", None]),
        ~Q(username__in={"ann"}),
        Q(Q(username__in=("ann", "eve")), ~Q(first_name__in=["eve", ""])),
    ):
        stream.configure(MODELS=["auth.User"], ROWS={"auth.User": condition})
        stream.set_up()
        row_filter = published(stream, "auth_user").row_filter
        found = {name for (name,) in execute(f"SELECT username FROM auth_user WHERE {row_filter}")}
        assert found == {*User.objects.filter(condition).values_list("username", flat=True)}


def test_condition_that_changed_is_followed_without_a_gap(stream: Stream) -> None:
    stream.listen(Note)
    stream.configure(ROWS={"testapp.Note": Q(text="a")})
    stream.set_up()
    stream.configure(ROWS={"testapp.Note": Q(text="b")})
    stream.set_up()
    for text in "ab":
        Note.objects.create(text=text)
    assert [change.instance.text for change in stream.consume()] == ["b"]
    stream.configure(ROWS={})
    stream.set_up()
    assert published(stream, "testapp_note").row_filter == ""


REFUSED: dict[str, tuple[Q, str]] = {
    "a column that is not there": (Q(nothing=1), "Cannot resolve keyword 'nothing'"),
    "another table": (Q(groups__name="staff"), "Joined field references are not permitted"),
    "a value that no column takes": (Q(id="seven"), "expected a number"),
    "nothing at all": (Q(pk__in=[]), "no row can meet it"),
    "raw SQL": (Q(RawSQL("is_staff", [], output_field=BooleanField())), "raw SQL"),
    "a moment": (Q(date_joined__lt=Now()), "PostgreSQL says: invalid publication WHERE expression"),
    "chance": (Q(id__gt=Func(function="random")), "PostgreSQL says: invalid publication WHERE expression"),
    "a subquery": (Q(Exists(Note.objects.filter(pk=OuterRef("pk")))), "can't be a row filter"),
}


@pytest.mark.parametrize(("condition", "reason"), REFUSED.values(), ids=REFUSED)
def test_condition_that_postgresql_would_refuse_is_refused_before_anything_changes(
    stream: Stream, condition: Q, reason: str
) -> None:
    stream.configure(ROWS={"auth.User": condition})
    stream.listen(User)
    with pytest.raises(CommandError) as caught:
        stream.set_up()
    assert caught.value.returncode == 1
    assert "ROWS of auth.User" in str(caught.value)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert execute("SELECT count(*) FROM pg_publication") == [(0,)]
    assert identity("auth_user") == "d"


def test_column_outside_the_identity_is_refused_before_it_breaks_writes(stream: Stream) -> None:
    stream.configure(ROWS={"testapp.Note": Q(text="a")}, REPLICA_IDENTITY="keep")
    stream.listen(Note)
    with pytest.raises(
        CommandError, match=r"UPDATE and DELETE would fail, since text is no part .* REPLICA IDENTITY FULL"
    ):
        stream.set_up()
    Note.objects.create(text="a")
    Note.objects.update(text="b")  # the application's own write
    assert execute("SELECT count(*) FROM pg_publication") == [(0,)]


def test_column_of_the_identity_needs_no_full(stream: Stream) -> None:
    stream.configure(ROWS={"testapp.Note": Q(pk__gt=0)}, REPLICA_IDENTITY="keep")
    stream.listen(Note)
    stream.set_up()
    Note.objects.create(text="a")
    Note.objects.update(text="b")
    assert len(stream.consume()) == 2


def test_raw_postgresql_does_break_writes_that_are_refused_here(stream: Stream) -> None:
    """The fact behind the refusal: PostgreSQL takes such a filter, and then refuses UPDATE."""
    execute("CREATE PUBLICATION raw FOR TABLE testapp_note WHERE (text = 'a')")
    Note.objects.create(text="a")
    with pytest.raises(Exception, match="not part of the replica identity"):
        Note.objects.update(text="b")
    stream.drop()


@pytest.mark.parametrize("target", ["ALL TABLES", "TABLES IN SCHEMA public"])
def test_publication_that_knows_no_conditions_is_refused(stream: Stream, target: str) -> None:
    execute(f'CREATE PUBLICATION "Pub ""{stream.name}""" FOR {target}')
    stream.configure(ROWS={"testapp.Note": Q(text="a")})
    stream.listen(Note)
    with pytest.raises(CommandError, match="knows no conditions"):
        stream.set_up()


def test_unknown_model_is_named_with_the_one_that_it_resembles(stream: Stream) -> None:
    stream.configure(ROWS={"testapp.Nota": Q(text="a")})
    stream.listen(Note)
    with pytest.raises(
        CommandError, match=r"ROWS names 'testapp\.nota', which no app has: did you mean 'testapp\.Note'"
    ):
        stream.set_up()


def test_columns_that_a_condition_reads_are_known() -> None:
    condition = Q(Q(username=F("email")) | ~Q(last_login=None), first_name=Upper("last_name"))
    compiled = compile_filter(connection, User, condition)
    assert compiled is not None
    assert compiled.columns == {"username", "email", "last_login", "first_name", "last_name"}


class TestComparing:
    """What is published is compared with what should be, though the server shows it in words of its own."""

    @pytest.fixture
    def role(self, stream: Stream) -> Iterator[str]:
        """Act as a role without any right."""
        stream.configure(ROWS={"testapp.Note": Q(text="a")})
        stream.listen(Note)
        stream.set_up()
        with consumer_role(stream) as role:
            execute(f"CREATE ROLE {role}")
            execute(f"SET SESSION AUTHORIZATION {role}")
            try:
                yield role
            finally:
                execute("RESET SESSION AUTHORIZATION")

    def is_same(self, stream: Stream, condition: Q) -> bool:
        compiled = compile_filter(connection, Note, condition)
        assert compiled is not None
        return is_as_published(connection, compiled.sql, published(stream, "testapp_note"))

    def test_needs_no_right_on_the_table(self, stream: Stream, role: str) -> None:
        assert self.is_same(stream, Q(text="a"))
        assert not self.is_same(stream, Q(text="b"))

    def test_leaves_nothing(self, stream: Stream, role: str) -> None:
        self.is_same(stream, Q(text="a"))
        assert execute("SELECT count(*) FROM pg_class WHERE relname LIKE 'walsignals_probe%%'") == [(0,)]

    def test_takes_them_for_the_same_where_it_may_make_no_view(self, stream: Stream, role: str) -> None:
        execute("RESET SESSION AUTHORIZATION")
        database = connection.ops.quote_name(connection.settings_dict["NAME"])
        execute(f"REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC")
        try:
            execute(f"SET SESSION AUTHORIZATION {role}")
            assert self.is_same(stream, Q(text="b"))
        finally:
            execute("RESET SESSION AUTHORIZATION")
            execute(f"GRANT TEMPORARY ON DATABASE {database} TO PUBLIC")


def test_condition_that_every_row_meets_is_none() -> None:
    assert compile_filter(connection, User, Q()) is None


class TestPartitions:
    @pytest.fixture
    def partitioned(self, stream: Stream) -> Any:
        """Put a partitioned table in the place of the notes'."""
        execute("ALTER TABLE testapp_note RENAME TO hidden")
        execute(
            "CREATE TABLE testapp_note (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, text text NOT NULL) "
            "PARTITION BY RANGE (id)"
        )
        # The columns stand in another order in one of them.
        execute("CREATE TABLE low (text text NOT NULL, id bigint NOT NULL PRIMARY KEY)")
        execute("ALTER TABLE testapp_note ATTACH PARTITION low FOR VALUES FROM (0) TO (1000)")
        execute("CREATE TABLE high PARTITION OF testapp_note FOR VALUES FROM (1000) TO (2000)")
        yield
        execute("DROP TABLE testapp_note")
        execute("ALTER TABLE hidden RENAME TO testapp_note")

    def test_condition_on_the_root_holds_for_the_partitions(self, stream: Stream, partitioned: Any) -> None:
        stream.configure(ROWS={"testapp.Note": Q(text="a")})
        stream.listen(Note)
        stream.set_up()
        assert identity("low") == identity("high") == "f"
        for pk, text in ((1, "a"), (2, "b"), (1001, "a"), (1002, "b")):
            Note.objects.create(pk=pk, text=text)
        Note.objects.update(text="c")
        changes = stream.consume()
        assert [(change.operation, change.pk) for change in changes] == [
            ("insert", 1),
            ("insert", 1001),
            ("delete", 1),
            ("delete", 1001),
        ]

    def test_one_partition_without_full_is_enough_to_refuse(self, stream: Stream, partitioned: Any) -> None:
        execute("ALTER TABLE testapp_note REPLICA IDENTITY FULL")
        execute("ALTER TABLE low REPLICA IDENTITY FULL")
        stream.configure(ROWS={"testapp.Note": Q(text="a")}, REPLICA_IDENTITY="keep")
        stream.listen(Note)
        with pytest.raises(CommandError, match=r"no part of the replica identity of public.high"):
            stream.set_up()

    def test_excluded_column_stays_on_the_server(self, stream: Stream, partitioned: Any) -> None:
        stream.configure(EXCLUDE={"testapp.Note": ["text"]}, REPLICA_IDENTITY="keep")
        stream.listen(Note)
        stream.set_up()
        assert published(stream, "testapp_note").columns == ("id",)
        assert {member.table.name for member in publication(stream).tables.values()} == {"testapp_note"}
        Note.objects.create(pk=1, text="secret")
        Note.objects.create(pk=1001, text="secret")
        Note.objects.update(text="other")
        Note.objects.all().delete()
        assert len(stream.consume()) == 6
