"""Context from the application to its receivers, on a real server: what each change carries, and what it costs."""

import asyncio
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest
from asgiref.sync import sync_to_async
from django.db import DatabaseError, IntegrityError, close_old_connections, connection, connections, transaction
from django.db.models import F
from psycopg import IsolationLevel, sql

from django_walsignals import context, emit_message, post_wal_change, wal_message
from django_walsignals.delivery import letters, replay
from django_walsignals.emission import ContextEmitter
from django_walsignals.models import DeadLetter
from django_walsignals.testing import WalStream, capture_wal_changes, make_change
from tests.testapp.models import Note

pytestmark = pytest.mark.integration


@pytest.fixture
def notes(transactional_db: None, no_receivers: None) -> Iterator[WalStream]:
    with WalStream() as stream:
        stream.listen(Note)
        yield stream


def execute(statement, params=None):
    with connection.cursor() as cursor:
        cursor.execute(statement, params)


def write(text):
    Note.objects.create(text=text)


def contexts(stream):
    """Consume; give each change's text, its ordinal and its context. A message before it counts in the ordinal."""
    return [(change.instance.text, change.ordinal, dict(change.transaction.context)) for change in stream.consume()]


class Undo(Exception):
    """Raised to roll back."""


@contextmanager
def undone() -> Iterator[None]:
    """Roll back a block, to its savepoint or as a whole."""
    with suppress(Undo), transaction.atomic():
        yield
        raise Undo


class TestPlaces:
    def test_atomic_block_has_one_message_before_its_first_write(self, notes):
        with context(user=7, reason="test"), transaction.atomic():
            assert Note.objects.count() == 0
            Note.objects.bulk_create([Note(text="a"), Note(text="b")])
            Note.objects.update(text=F("text"))
            write("c")
        found = contexts(notes)
        assert [ordinal for _, ordinal, _ in found] == [2, 3, 4, 5, 6]
        assert [of for _, _, of in found] == [{"user": 7, "reason": "test"}] * 5

    def test_each_transaction_of_a_block_has_its_own(self, notes):
        with context(user=7):
            for text in "ab":
                with transaction.atomic():
                    write(text)
        write("c")
        assert contexts(notes) == [("a", 2, {"user": 7}), ("b", 2, {"user": 7}), ("c", 1, {})]

    def test_autocommit(self, notes):
        with context(user=7):
            write("a")
            execute("INSERT INTO testapp_note (text) VALUES ('b')")
            with connection.cursor() as cursor:
                cursor.executemany("INSERT INTO testapp_note (text) VALUES (%s)", [["c"], ["d"]])
        write("e")
        assert contexts(notes) == [
            ("a", 2, {"user": 7}),
            ("b", 2, {"user": 7}),
            ("c", 2, {"user": 7}),
            ("d", 3, {"user": 7}),
            ("e", 1, {}),
        ]

    def test_autocommit_error_leaves_no_half(self, notes):
        write("a")
        with context(user=7):
            with pytest.raises(IntegrityError):
                Note.objects.create(pk=Note.objects.get().pk, text="b")
            assert connection.connection.info.transaction_status.name == "IDLE"
            write("c")
        assert contexts(notes) == [("a", 1, {}), ("c", 2, {"user": 7})]

    def test_composed_and_commented_statements(self, notes):
        insert = sql.SQL("INSERT INTO {} (text) VALUES ({})").format(sql.Identifier("testapp_note"), sql.Literal("a"))
        with context(user=7), transaction.atomic():
            execute(insert)
        with context(user=8), transaction.atomic():
            execute("/* shop */ WITH b AS (INSERT INTO testapp_note (text) VALUES ('b') RETURNING id) SELECT id FROM b")
        with context(user=9), transaction.atomic():
            execute(b"INSERT INTO testapp_note (text) VALUES ('c')")
        assert contexts(notes) == [("a", 2, {"user": 7}), ("b", 2, {"user": 8}), ("c", 2, {"user": 9})]

    def test_change_of_context_inside_a_transaction(self, notes):
        with transaction.atomic():
            write("none")
            with context(user=7):
                write("outer")
                with context(step=2):
                    write("inner")
                write("outer again")
            write("none again")
            write("and again")
        assert contexts(notes) == [
            ("none", 1, {}),
            ("outer", 3, {"user": 7}),
            ("inner", 5, {"user": 7, "step": 2}),
            ("outer again", 7, {"user": 7}),
            ("none again", 9, {}),
            ("and again", 10, {}),
        ]

    def test_all_parts_of_a_transaction_learn_of_its_end(self, notes):
        with transaction.atomic(), context(user=7):
            write("a")
            with context(user=8):
                write("b")
        first, second = notes.consume()
        assert first.transaction is not second.transaction
        assert first.transaction.end_lsn == second.transaction.end_lsn is not None
        assert first.transaction.commit_lsn == second.transaction.commit_lsn

    def test_truncate_and_message_carry_it(self, notes):
        heard = []

        def hear(*, prefix, content, transaction, **kwargs):
            heard.append((prefix, content, dict(transaction.context)))

        wal_message.connect(hear)
        with context(user=7):
            emit_message("shop.mail", "é")
            with transaction.atomic():
                emit_message("shop.mail", b"\xff\0")
        notes.consume()
        assert heard == [("shop.mail", "é".encode(), {"user": 7}), ("shop.mail", b"\xff\0", {"user": 7})]


class TestSavepoints:
    def test_what_was_rolled_back_is_said_again(self, notes):
        with context(user=7), transaction.atomic():
            with undone():
                write("gone")
            write("a")
        assert contexts(notes) == [("a", 2, {"user": 7})]

    def test_context_of_a_rolled_back_block_is_not_left_behind(self, notes):
        with transaction.atomic():
            with context(user=7):
                write("a")
            with undone():
                write("gone")  # behind a message that takes the context away, which goes too
            write("b")
            with undone(), context(user=8):
                write("gone, too")
            write("c")
        assert [(text, of) for text, _, of in contexts(notes)] == [("a", {"user": 7}), ("b", {}), ("c", {})]

    def test_released_savepoint_keeps_it(self, notes):
        with context(user=7), transaction.atomic():
            with transaction.atomic():
                write("a")
            write("b")
        assert contexts(notes) == [("a", 2, {"user": 7}), ("b", 3, {"user": 7})]

    def test_message_that_no_row_follows_is_said_again_in_the_next_subtransaction(self, notes):
        """Else the message's end is the row's start, and decoding puts the row first."""
        with context(user=7), transaction.atomic():
            Note.objects.filter(pk=0).update(text="")
            with transaction.atomic():
                write("a")
        with context(user=8), transaction.atomic():
            with transaction.atomic():
                Note.objects.filter(pk=0).update(text="")
            write("b")
        assert contexts(notes) == [("a", 3, {"user": 7}), ("b", 3, {"user": 8})]

    def test_savepoint_of_raw_sql(self, notes):
        with context(user=7), transaction.atomic():
            execute("SAVEPOINT mine")
            write("gone")
            execute("ROLLBACK TO SAVEPOINT mine")
            write("a")
        assert contexts(notes) == [("a", 2, {"user": 7})]

    def test_error_in_a_savepoint(self, notes):
        with context(user=7), transaction.atomic():
            write("a")
            with pytest.raises(IntegrityError), transaction.atomic():
                Note.objects.create(pk=Note.objects.get().pk, text="twice")
            write("b")
        found = contexts(notes)
        assert [(text, of) for text, _, of in found] == [("a", {"user": 7}), ("b", {"user": 7})]

    def test_random_nesting_never_mixes(self, notes):
        """Blocks, savepoints and rollbacks as they come: each row says itself in which context it was written."""
        chance = random.Random(7)

        def act(depth):
            for _ in range(chance.randint(1, 3)):
                action = chance.choice(["write", "read", "context", "keep", "undo"] if depth else ["write"])
                if action == "write":
                    write(str(context.current().get("n", "")))
                elif action == "read":
                    Note.objects.count()
                elif action == "context":
                    with context(n=chance.randint(1, 5)):
                        act(depth - 1)
                elif action == "keep":
                    with transaction.atomic():
                        act(depth - 1)
                else:
                    with undone():
                        act(depth - 1)

        for _ in range(60):
            with transaction.atomic():
                act(5)
            act(4)
        found = contexts(notes)
        assert len(found) > 150
        assert [(text, of) for text, _, of in found if text != str(of.get("n", ""))] == []


class TestNewTransactions:
    def test_transaction_that_begins_where_nobody_looks(self, notes):
        """The same text again in the next transaction, whose first statement Django's wrappers don't see."""
        with context(user=7):
            with transaction.atomic():
                write("a")
            with transaction.atomic():
                with connection.cursor() as cursor, cursor.copy("COPY testapp_note (text) FROM STDIN") as copy:
                    copy.write_row(["copied"])
                write("b")
        assert contexts(notes) == [("a", 2, {"user": 7}), ("copied", 1, {}), ("b", 3, {"user": 7})]

    def test_read_without_context_begins_the_next(self, notes):
        with transaction.atomic(), context(user=7):
            write("a")
        with transaction.atomic():
            Note.objects.count()
            with context(user=7):
                write("b")
        assert contexts(notes) == [("a", 2, {"user": 7}), ("b", 2, {"user": 7})]

    def test_rolled_back_transaction(self, notes):
        with context(user=7):
            with undone():
                write("gone")
            with transaction.atomic():
                write("a")
        assert contexts(notes) == [("a", 2, {"user": 7})]

    def test_manual_transactions(self, notes):
        transaction.set_autocommit(False)
        try:
            with context(user=7):
                for text in "ab":
                    write(text)
                    transaction.commit()
                write("gone")
                transaction.rollback()
        finally:
            transaction.set_autocommit(True)
        assert contexts(notes) == [("a", 2, {"user": 7}), ("b", 2, {"user": 7})]

    def test_begin_of_raw_sql(self, notes):
        with context(user=7):
            for text in "ab":
                execute("BEGIN")
                write(text)
                execute("COMMIT")
        assert contexts(notes) == [("a", 2, {"user": 7}), ("b", 2, {"user": 7})]

    def test_transactions_of_psycopg_itself(self, notes):
        connection.ensure_connection()
        with context(user=7):
            for text in "ab":
                with connection.connection.transaction():
                    write(text)
        assert contexts(notes) == [("a", 2, {"user": 7}), ("b", 2, {"user": 7})]

    def test_hooks_on_commit_write_in_the_context(self, notes):
        with context(user=7), transaction.atomic():
            transaction.on_commit(lambda: write("b"))
            write("a")
        assert contexts(notes) == [("a", 2, {"user": 7}), ("b", 2, {"user": 7})]

    def test_connection_that_died_and_was_made_again(self, notes):
        with context(user=7):
            write("a")
            with connections["default"].copy().cursor() as other:
                other.execute("SELECT pg_terminate_backend(%s)", [connection.connection.info.backend_pid])
                other.connection.close()
            with pytest.raises(DatabaseError):
                write("gone")
            close_old_connections()
            write("b")
            assert sum(isinstance(wrapper, ContextEmitter) for wrapper in connection.execute_wrappers) == 1
        assert contexts(notes) == [("a", 2, {"user": 7}), ("b", 2, {"user": 7})]

    def test_connecting_inside_of_another_wrapper(self, notes):
        connection.close()
        seen = []

        def spy(run, statement, *rest):
            seen.append(statement)
            return run(statement, *rest)

        with context(user=7):
            with connection.execute_wrapper(spy):
                write("a")
            write("b")
        assert len(seen) == 1  # the message is none of Django's statements
        assert contexts(notes) == [("a", 2, {"user": 7}), ("b", 2, {"user": 7})]


class TestCost:
    def xid(self):
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_current_xact_id_if_assigned()")
            return cursor.fetchone()[0]

    def test_transaction_that_only_reads_gets_no_message(self, notes):
        with context(user=7), transaction.atomic():
            assert not Note.objects.filter(text="a").exists()
            assert [*Note.objects.select_for_update()] == []
            assert [*Note.objects.iterator()] == []
            assert self.xid() is None  # a message would have needed a transaction id
            write("a")
            assert self.xid() is not None

    def test_no_query_is_counted(self, notes, django_assert_num_queries):
        with context(user=7), transaction.atomic(), django_assert_num_queries(2):
            write("a")
            write("b")

    def test_empty_context_says_nothing(self, notes):
        with context():
            write("a")
        assert contexts(notes) == [("a", 1, {})]

    def test_database_that_no_stream_reads(self, notes, settings):
        settings.WALSIGNALS = {"default": {"DATABASE": "elsewhere"}}
        with context(user=7), transaction.atomic():
            Note.objects.exists()
            write("a")
        settings.WALSIGNALS = {}
        assert contexts(notes) == [("a", 1, {})]


class TestLateValues:
    def test_value_known_only_behind_the_first_write(self, notes):
        user = None
        with context(user=lambda: user), transaction.atomic():
            write("a")
            user = 7
            write("b")
            write("c")
        assert contexts(notes) == [("a", 2, {"user": None}), ("b", 4, {"user": 7}), ("c", 5, {"user": 7})]

    def test_function_that_queries_and_writes(self, notes):
        def user():
            write("by the function")
            return Note.objects.count()

        with context(user=user), transaction.atomic():
            write("a")
        assert contexts(notes) == [("by the function", 1, {}), ("a", 3, {"user": 1})]

    def test_function_that_fails_does_not_fail_the_write(self, notes, caplog):
        with context(user=lambda: 1 / 0, line=3):
            write("a")
        assert contexts(notes) == [("a", 2, {"line": 3})]
        assert "ZeroDivisionError" in caplog.text

    @pytest.mark.parametrize("broken", [lambda: execute("SELECT 1/0"), lambda: write(None)], ids=["query", "save"])
    def test_function_whose_query_fails_does_not_fail_the_write(self, notes, caplog, broken):
        with context(user=broken, reason="import"):
            with transaction.atomic():
                write("a")
                write("b")
            write("c")
            transaction.set_autocommit(False)
            try:
                write("d")
                transaction.commit()
            finally:
                transaction.set_autocommit(True)
        assert contexts(notes) == [
            ("a", 2, {"reason": "import"}),
            ("b", 4, {"reason": "import"}),
            ("c", 2, {"reason": "import"}),
            ("d", 2, {"reason": "import"}),
        ]
        assert "context(user=…): the function that was given fails" in caplog.text

    def test_savepoint_of_a_function_ends_with_it(self, notes):
        asked = []

        def count():
            asked.append(Note.objects.count())
            return len(asked)

        with context(number=count):
            with transaction.atomic():
                write("a")
                with undone():
                    write("gone")
                write("b")
            with undone():
                write("gone")
        assert [(text, found) for text, _, found in contexts(notes)] == [("a", {"number": 1}), ("b", {"number": 3})]
        assert asked == [0, 1, 1, 2]


class TestRefused:
    """The application's own writes never fail because of us."""

    @pytest.fixture
    def role(self, notes):
        """Be a role that may write notes, but no messages."""
        execute("REVOKE EXECUTE ON FUNCTION pg_catalog.pg_logical_emit_message(boolean, text, text) FROM PUBLIC") if (
            connection.pg_version < 170000
        ) else execute(
            "REVOKE EXECUTE ON FUNCTION pg_catalog.pg_logical_emit_message(boolean, text, text, boolean) FROM PUBLIC"
        )
        execute("DROP ROLE IF EXISTS walsignals_clerk")
        execute("CREATE ROLE walsignals_clerk")
        execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO walsignals_clerk")
        execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO walsignals_clerk")
        execute("SET ROLE walsignals_clerk")
        yield
        execute("RESET ROLE")
        execute("DROP OWNED BY walsignals_clerk")
        execute("DROP ROLE walsignals_clerk")
        extra = "" if connection.pg_version < 170000 else ", boolean"
        execute(f"GRANT EXECUTE ON FUNCTION pg_catalog.pg_logical_emit_message(boolean, text, text{extra}) TO PUBLIC")
        connection.close()

    def test_role_without_the_right_writes_all_the_same(self, notes, role, caplog, monkeypatch):
        monkeypatch.setattr("django_walsignals.emission._refused", set())
        with context(user=7):
            write("a")
            with transaction.atomic():
                write("b")
                write("c")
        execute("RESET ROLE")
        assert contexts(notes) == [("a", 1, {}), ("b", 1, {}), ("c", 2, {})]
        said = [record.getMessage() for record in caplog.records if record.name == "django_walsignals.emission"]
        assert len(said) == 1
        assert "may not call pg_logical_emit_message. GRANT EXECUTE on the function" in said[0]

    def test_inside_a_transaction_too(self, notes, role, caplog, monkeypatch):
        monkeypatch.setattr("django_walsignals.emission._refused", set())
        with context(user=7), transaction.atomic():
            write("a")
        execute("RESET ROLE")
        assert contexts(notes) == [("a", 1, {})]
        assert "may not call pg_logical_emit_message" in caplog.text

    def test_broken_transaction_tells_its_own_error(self, notes):
        execute("BEGIN")
        with pytest.raises(DatabaseError):
            execute("SELECT 1/0")
        with context(user=7), pytest.raises(DatabaseError, match="current transaction is aborted"):
            execute("INSERT INTO testapp_note (text) VALUES ('a')")
        execute("ROLLBACK")

    def test_cursor_of_a_closed_connection_tells_its_own_error(self, notes):
        cursor = connection.cursor()
        connection.close()
        with context(user=7), pytest.raises(DatabaseError, match="closed"):
            cursor.execute("INSERT INTO testapp_note (text) VALUES ('a')")

    def test_pipeline(self, notes):
        with context(user=7), transaction.atomic(), connection.connection.pipeline():
            write("a")
        assert contexts(notes) == [("a", 2, {"user": 7})]

    def test_prepared_statements(self, notes):
        connection.ensure_connection()
        connection.connection.prepare_threshold = 0
        try:
            with context(user=7):
                write("a")
        finally:
            connection.close()
        assert contexts(notes) == [("a", 2, {"user": 7})]


class TestReading:
    @pytest.mark.parametrize("content", ["[]", "not json", '{"a": NaN}', "x" * 20_000])
    def test_malformed_message_is_passed_over_and_said_once(self, notes, caplog, content):
        with transaction.atomic(), context(user=7):
            write("a")
            execute("SELECT pg_logical_emit_message(true, 'walsignals.context', %s)", [content])
            execute("SELECT pg_logical_emit_message(true, 'walsignals.context', %s)", [content])
            write("b")
        found = contexts(notes)
        assert [(text, of) for text, _, of in found] == [("a", {"user": 7}), ("b", {"user": 7})]
        assert caplog.text.count("A message with prefix walsignals.context is passed over") == 1

    def test_own_messages_are_not_the_applications(self, notes):
        heard = []

        def hear(*, prefix, **kwargs):
            heard.append(prefix)

        wal_message.connect(hear)
        with context(user=7):
            write("a")
        for prefix in ("walsignals", "walsignals.context", "walsignals.future", "walsignals2"):
            for transactional in (True, False):
                execute("SELECT pg_logical_emit_message(%s, %s, '{}')", [transactional, prefix])
        assert contexts(notes) == [("a", 2, {"user": 7})]
        assert heard == ["walsignals2"] * 2

    def test_resumed_in_the_middle_of_a_transaction(self, stream):
        """Of what was done before, the server sends all again; the messages among it are not to be missed."""
        stream.configure(BATCH_SIZE=1)
        stream.listen(Note)
        stream.set_up()
        with transaction.atomic(), context(user=7):
            for text in "abc":
                write(text)
            with context(user=8):
                write("d")
        found = [stream.consume(max_changes=1, until_lsn=None) for _ in range(2)]
        assert stream.checkpoint.ordinal == 3  # the message counts
        found += [stream.consume()]
        assert [[(change.instance.text, change.transaction.context["user"]) for change in some] for some in found] == [
            [("a", 7)],
            [("b", 7)],
            [("c", 7), ("d", 8)],
        ]

    def test_dead_letter_brings_it_back(self, stream):
        users = []

        def fail_at_first(*, change, **kwargs):
            if not users:
                raise LookupError
            users.append(change.transaction.context["user"])

        post_wal_change.connect(fail_at_first, sender=Note)
        stream.configure(MAX_ATTEMPTS=1)
        stream.set_up()
        with context(user=7):
            write("a")
        stream.consume()
        users[:] = ["dead"]
        [result] = replay.replay(DeadLetter.objects.all())
        assert result.outcome is replay.Outcome.REPLAYED
        assert users == ["dead", 7]

    def test_dead_letter_keeps_it(self, notes):
        with context(user=7, text="a\0\ud800"):
            write("a")
        [change] = notes.consume()
        described = letters.describe(change)
        assert described["payload"]["transaction"]["context"] == {"user": 7, "text": "a\\x00\\ud800"}


class TestConnections:
    """Every way in which Django may talk to its database."""

    @pytest.fixture
    def other(self, notes):
        """Give a connection of its own, to make anew with other options."""
        made = []

        def connect(**options):
            copied = connections["default"].copy()
            copied.settings_dict["OPTIONS"] = {**copied.settings_dict["OPTIONS"], **options}
            made.append(copied)
            return copied

        yield connect
        for copied in made:
            copied.close()

    def insert(self, wrapper, text):
        with wrapper.cursor() as cursor:
            cursor.execute("INSERT INTO testapp_note (text) VALUES (%s)", [text])

    @pytest.mark.parametrize("options", [{"server_side_binding": True}, {"prepare_threshold": 0}])
    def test_options(self, notes, other, options):
        wrapper = other(**options)
        for user in (7, 8):
            with context(user=user):
                self.insert(wrapper, "a")
                self.insert(wrapper, "b")
            self.insert(wrapper, "c")
            wrapper.close()
        once = [("a", 2, {"user": 7}), ("b", 2, {"user": 7}), ("c", 1, {})]
        again = [(text, ordinal, of and {"user": 8}) for text, ordinal, of in once]
        assert contexts(notes) == once + again

    def test_isolation_level_is_still_that_of_a_statement_alone(self, notes, other):
        """The option is for transactions; a lone statement has the server's, and is not refused for what others do."""
        wrapper = other(isolation_level=IsolationLevel.SERIALIZABLE)
        insert = "INSERT INTO testapp_note (text) VALUES (current_setting('transaction_isolation'))"
        with wrapper.cursor() as cursor:
            cursor.execute(insert)
            with context(user=7):
                cursor.execute(insert)
                with pytest.raises(IntegrityError):
                    cursor.execute("INSERT INTO testapp_note (text) VALUES (NULL)")
                cursor.execute(insert)
        assert contexts(notes) == [
            ("read committed", 1, {}),
            ("read committed", 2, {"user": 7}),
            ("read committed", 2, {"user": 7}),
        ]

    def test_each_connection_knows_its_own_transaction(self, notes, other):
        wrapper = other()
        with context(user=7), transaction.atomic():
            write("a")
            self.insert(wrapper, "b")
            self.insert(wrapper, "c")
        assert contexts(notes) == [("b", 2, {"user": 7}), ("c", 2, {"user": 7}), ("a", 2, {"user": 7})]

    def test_test_case_is_left_as_it_was(self, notes, django_assert_num_queries):
        """In a ``TestCase`` all is one transaction, which is rolled back."""
        with undone(), context(user=7):
            for text in "ab":
                with transaction.atomic(), django_assert_num_queries(1):
                    write(text)
            assert Note.objects.count() == 2
        assert contexts(notes) == []


class TestIsolation:
    def test_eight_threads(self, notes):
        """Each with its own connection, and transactions of several kinds."""
        together = threading.Barrier(8)

        def work(thread):
            try:
                together.wait(10)
                for number in range(25):
                    who = f"{thread}.{number}"
                    with context(who=who):
                        write(who)
                        with transaction.atomic():
                            write(who)
                            with context(who=f"{who} inner"):
                                write(f"{who} inner")
                            write(who)
                    write("")
            finally:
                connection.close()

        with ThreadPoolExecutor(8) as pool:
            assert [*pool.map(work, range(8))] == [None] * 8
        found = contexts(notes)
        assert len(found) == 8 * 25 * 5
        assert [(text, of) for text, _, of in found if of.get("who", "") != text] == []

    async def _work(self, number):
        who = str(number)
        async with context(who=who):
            for _ in range(3):
                await Note.objects.acreate(text=who)
                await asyncio.sleep(0)
            await sync_to_async(self._transaction)(who)
        await Note.objects.acreate(text="")

    def _transaction(self, who):
        with transaction.atomic():
            write(who)
            write(who)

    def test_a_hundred_tasks(self, notes):
        async def main():
            await asyncio.gather(*(self._work(number) for number in range(100)))
            await sync_to_async(connections.close_all)()

        asyncio.run(main())
        found = contexts(notes)
        assert len(found) == 100 * 6
        assert [(text, of) for text, _, of in found if of.get("who", "") != text] == []


class TestTesting:
    def test_made_changes_carry_the_block_they_are_made_in(self):
        with context(user=7):
            assert make_change(Note(pk=1)).transaction.context == {"user": 7}
        assert make_change(Note(pk=1)).transaction.context == {}

    def test_captured_changes_carry_it(self, db):
        with transaction.atomic(), capture_wal_changes(Note) as changes, transaction.atomic():
            write("a")
            with context(user=7):
                write("b")
                write("c")
            write("d")
        assert [dict(change.transaction.context) for change in changes] == [{}, {"user": 7}, {"user": 7}, {}]
        assert len({change.transaction.commit_lsn for change in changes}) == 1
        assert [change.ordinal for change in changes] == [1, 2, 3, 4]


class TestEmitMessage:
    @pytest.mark.parametrize("prefix", ["walsignals", "walsignals.context", "walsignals.mine"])
    def test_reserved_prefix_is_refused(self, prefix):
        with pytest.raises(ValueError, match="is reserved: walsignals and walsignals"):
            emit_message(prefix, "x")

    @pytest.mark.parametrize("prefix", ["", "a\0b"])
    def test_impossible_prefix_is_refused(self, prefix):
        with pytest.raises(ValueError, match="can't be a message's prefix"):
            emit_message(prefix, "x")

    def test_wrong_types_are_refused(self):
        with pytest.raises(TypeError, match=r"json\.dumps\(\) it, perhaps"):
            emit_message("shop", {"a": 1})
        with pytest.raises(TypeError, match="prefix is str, not bytes"):
            emit_message(b"shop", "x")

    def test_rolled_back_message_never_arrives_and_one_outside_does(self, notes):
        heard = []

        def hear(*, prefix, content, transaction, **kwargs):
            heard.append((prefix, content, transaction is None))

        wal_message.connect(hear)
        with context(user=7), undone():
            emit_message("shop.mail", "transactional")
            emit_message("shop.mail", "at once", transactional=False)
        emit_message("shop.mail", "committed")
        notes.consume()
        assert heard == [("shop.mail", b"at once", True), ("shop.mail", b"committed", False)]
