"""`context` by itself: what holds where, what may be in it, and what a message of it says. No database."""

import asyncio
import datetime as dt
import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.utils.translation import gettext_lazy

from django_walsignals import context
from django_walsignals.metadata import MAX_BYTES, MAX_DEPTH, decode, is_reserved
from django_walsignals.statements import Kind, kind


def nested(depth):
    return [nested(depth - 1)] if depth else []


class TestBlocks:
    def test_holds_inside_and_not_behind(self):
        with context(user=7):
            assert context.current() == {"user": 7}
        assert context.current() == {}

    def test_inner_block_adds_and_replaces_until_it_ends(self):
        with context(user=7, reason="import"):
            with context(reason="correction", line=3):
                assert context.current() == {"user": 7, "reason": "correction", "line": 3}
            assert context.current() == {"user": 7, "reason": "import"}

    def test_an_exception_ends_it(self):
        with pytest.raises(LookupError), context(user=7):
            raise LookupError
        assert context.current() == {}

    def test_one_object_may_be_entered_again_inside_itself(self):
        again = context(user=7)
        with again, context(user=8), again:
            assert context.current() == {"user": 7}
        with again:
            assert context.current() == {"user": 7}
        assert context.current() == {}

    async def test_async_with(self):
        async with context(user=7):
            assert await sync_to_async(context.current)() == {"user": 7}
        assert context.current() == {}

    def test_what_a_view_enters_is_not_left_to_the_server_by_a_generator(self):
        def parts():
            with context(user=7):
                yield "part"

        made = parts()
        next(made)
        with context(user=8):
            made.close()  # ends a block that this code is not in
            assert context.current() == {}  # the outer block is the generator's
        assert context.current() == {}

    async def test_a_generator_ended_by_another_task_takes_nothing_away(self):
        async def parts():
            async with context(user=7):
                yield "part"

        made = parts()
        await asyncio.create_task(made.__anext__())
        async with context(user=8):
            await made.aclose()
            assert context.current() == {"user": 8}

    def test_keyword_self_is_a_name_like_others(self):
        with context(self=1):
            assert context.current() == {"self": 1}


class TestDecorator:
    def test_function(self):
        @context(command="import")
        def run(number, *, times):
            """Do it."""
            return context.current(), number * times

        assert run(2, times=3) == ({"command": "import"}, 6)
        assert (run.__name__, run.__doc__) == ("run", "Do it.")
        assert context.current() == {}

    async def test_async_function(self):
        @context(command="import")
        async def run():
            await asyncio.sleep(0)
            return context.current()

        assert await asyncio.gather(run(), run()) == [{"command": "import"}] * 2
        assert context.current() == {}

    def test_recursion(self):
        @context(level="inner")
        def down(left):
            return down(left - 1) if left else context.current()

        with context(level="outer"):
            assert down(3) == {"level": "inner"}
            assert context.current() == {"level": "outer"}

    def test_generator_and_class_are_refused(self):
        def generator():
            yield

        async def async_generator():
            yield

        for function in (generator, async_generator):
            with pytest.raises(TypeError, match="generator is a generator, which runs after its call"):
                context(user=7)(function)
        with pytest.raises(TypeError, match="TestDecorator is a class: decorate its methods"):
            context(user=7)(TestDecorator)


class TestIsolation:
    def test_eight_threads(self):
        together = threading.Barrier(8)

        def work(number):
            with context(number=number):
                together.wait(10)
                return context.current()

        with context(number="main"), ThreadPoolExecutor(8) as pool:
            assert [*pool.map(work, range(8))] == [{"number": number} for number in range(8)]

    async def test_a_hundred_tasks(self):
        async def work(number):
            async with context(number=number):
                await asyncio.sleep(0)
                return context.current(), await sync_to_async(context.current)()

        found = await asyncio.gather(*(work(number) for number in range(100)))
        assert found == [({"number": number}, {"number": number}) for number in range(100)]

    def test_async_to_sync_takes_it_along(self):
        async def inner():
            return context.current()

        with context(user=7):
            assert async_to_sync(inner)() == {"user": 7}


class TestValues:
    def test_what_django_can_write_is_read_back_as_json_has_it(self):
        key = uuid.uuid4()
        when = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
        with context(key=key, when=when, text=gettext_lazy("Save"), nothing=None, many=[1, {"a": "é\0\ud800"}]):
            found = context.current()
        assert found == {
            "key": str(key),
            "when": "2026-01-02T03:04:05Z",
            "text": "Save",
            "nothing": None,
            "many": [1, {"a": "é\0\ud800"}],
        }

    def test_changing_a_value_later_changes_nothing(self):
        tags = ["a"]
        with context(tags=tags):
            tags.append("b")
            assert context.current() == {"tags": ["a"]}

    @pytest.mark.parametrize("value", [object(), {1, 2}, float("nan"), [float("inf")], b"bytes", {(1, 2): 3}])
    def test_value_without_a_form_in_json_is_refused_by_name(self, value):
        with pytest.raises(TypeError, match=r"context\(odd=…\) can't be written as JSON: "):
            context(fine=1, odd=value)

    def test_size_is_bounded_alone_and_together(self):
        with pytest.raises(ValueError, match=r"The context is 16\d\d\d bytes of JSON.*'file' is the largest value"):
            context(user=7, file="x" * MAX_BYTES)
        half = "x" * (MAX_BYTES // 2)
        with context(first=half):
            with pytest.raises(ValueError, match="is all that it may have"), context(second=half):
                pass
            assert context.current() == {"first": half}

    def test_depth_is_bounded_as_it_is_for_the_reader(self):
        with context(deep=nested(MAX_DEPTH - 1)):
            assert decode(json.dumps(context.current()).encode()) == context.current()
        with pytest.raises(TypeError, match="nested more than"):
            context(deep=nested(MAX_DEPTH + 1))

    def test_function_is_called_late_and_each_time(self):
        user = None
        with context(user=lambda: user):
            assert context.current() == {"user": None}
            user = 7
            assert context.current() == {"user": 7}

    def test_function_that_fails_leaves_its_key_out_and_says_so(self, caplog):
        with context(user=lambda: 1 / 0, odd=object, line=3):
            assert context.current() == {"line": 3}
        assert "context(user=…): the function that was given fails" in caplog.text
        assert "ZeroDivisionError" in caplog.text and "context(odd=…)" in caplog.text

    def test_function_that_gives_too_much_is_left_out(self, caplog):
        with context(text=lambda: "x" * MAX_BYTES, line=3):
            assert context.current() == {"line": 3}
        assert "is the largest value" in caplog.text


class TestDecode:
    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"[]",
            b"7",
            b"\xff{}",
            b'{"a": NaN}',
            b'{"a": -Infinity}',
            b'{"a": 1e999}',
            b"{" * 5000,
            b'{"a":' * 2000 + b"1" + b"}" * 2000,
            b'{"a": ' + b"1" * 5000 + b"}",
            b'{"a": "' + b"x" * MAX_BYTES + b'"}',
            json.dumps({"deep": nested(MAX_DEPTH + 1)}).encode(),
        ],
    )
    def test_anything_else_is_a_value_error(self, content):
        with pytest.raises(ValueError, match=r"\w"):
            decode(content)

    def test_what_is_written_is_read(self):
        assert decode(b'{"a": [1.5, null, "\\u00e9"]}') == {"a": [1.5, None, "é"]}

    def test_own_prefixes(self):
        assert all(map(is_reserved, ["walsignals", "walsignals.context", "walsignals.x"]))
        assert not any(map(is_reserved, ["", "walsignal", "walsignals2", "Walsignals", "shop.walsignals"]))


class TestStatements:
    @pytest.mark.parametrize(
        "statement",
        [
            'INSERT INTO "t" VALUES (1)',
            "insert into t select 1",
            "\n\t UPDATE t SET a = 1",
            "DELETE FROM t",
            "MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE",
            "TRUNCATE t, u CASCADE",
            "/* by: the shop * ** */ -- really\n UPDATE t SET a = 1",
            "(INSERT INTO t VALUES (1))",
            "COPY t FROM '/tmp/x'",
            "COPY t (a, b) FROM STDIN",
            'copy "s"."t"\nfrom stdin',
            "WITH gone AS (DELETE FROM t RETURNING *) SELECT * FROM gone",
            "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
            "WITH x AS (SELECT 1) UPDATE t SET a = 1",
            "EXPLAIN (ANALYZE, BUFFERS) UPDATE t SET a = 1",
            "explain analyze INSERT INTO t VALUES (1)",
            "SELECT pg_catalog.pg_logical_emit_message(true, 'a', 'b')",
            "select pg_logical_emit_message( TRUE, 'a', 'b')",
        ],
    )
    def test_writes(self, statement):
        assert kind(statement) is Kind.WRITE

    @pytest.mark.parametrize(
        "statement",
        [
            "",
            "SELECT 1",
            'SELECT * FROM "t" FOR UPDATE',
            "WITH x AS (SELECT * FROM t FOR UPDATE) SELECT * FROM x",
            "WITH x AS (SELECT * FROM t FOR NO KEY UPDATE) SELECT * FROM x",
            "COPY t TO STDOUT",
            "COPY (SELECT a FROM t) TO STDOUT",
            "DECLARE c CURSOR FOR SELECT 1",
            "VACUUM t",
            "CREATE INDEX CONCURRENTLY i ON t (a)",
            "CREATE DATABASE d",
            "CALL p()",
            "INSERTED",
            "EXPLAIN SELECT 1",
            "EXPLAIN ANALYZE SELECT a FROM t FOR UPDATE",
            "/* INSERT",
            "SELECT pg_logical_emit_message(false, 'a', 'b')",
        ],
    )
    def test_does_not_write(self, statement):
        assert kind(statement) is Kind.OTHER

    @pytest.mark.parametrize("statement", ["ROLLBACK", "ROLLBACK TO SAVEPOINT a", " rollback to a"])
    def test_rolls_back(self, statement):
        assert kind(statement) is Kind.ROLLBACK

    @pytest.mark.parametrize("statement", ["SAVEPOINT a", 'RELEASE SAVEPOINT "a"', "release a"])
    def test_savepoint_begins_or_ends(self, statement):
        assert kind(statement) is Kind.SAVEPOINT

    @pytest.mark.parametrize("start", [" " * 100_000, "(" * 100_000, "/*" + "*" * 100_000, "--\n" * 50_000])
    def test_odd_statement_costs_no_more_than_its_length(self, start):
        assert kind(start + "SELECT 1") is Kind.OTHER
