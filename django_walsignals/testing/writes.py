"""What a block writes to some tables: every statement Django executes, and the server's own count of rows.

The statements are seen through Django's ``execute_wrapper``. The count (``pg_stat_xact_all_tables``) has what they
don't tell: cascades and triggers in the database, COPY, functions. Savepoints are followed, since Django rolls back
to them with statements too: what was written behind one that is rolled back was never written.
https://www.postgresql.org/docs/current/monitoring-stats.html
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from django_walsignals.changes import WalChange

#: A statement that starts with another word writes to no table by itself.
_WRITING: Final = re.compile(r"\s*(INSERT|UPDATE|DELETE|MERGE|TRUNCATE|COPY|WITH)\b", re.IGNORECASE)

_NAME: Final = r"(?:\"[^\"]+\"|[\w$]+)"
_TARGET: Final = re.compile(
    rf"\b(INSERT\s+INTO|UPDATE|DELETE\s+FROM|MERGE\s+INTO|TRUNCATE(?:\s+TABLE)?|COPY)\s+(?:ONLY\s+)?"
    rf"({_NAME}(?:\.{_NAME})?(?:\s*,\s*{_NAME}(?:\.{_NAME})?)*)",
    re.IGNORECASE,
)
_COPY_FROM: Final = re.compile(r"\s*(?:\([^)]*\)\s*)?FROM\b", re.IGNORECASE)
_SAVEPOINT: Final = re.compile(r"\s*(SAVEPOINT|ROLLBACK TO SAVEPOINT|RELEASE SAVEPOINT)\s+\"?([^\"\s]+)", re.IGNORECASE)

#: Rows written so far in this transaction, those of partitions too, also where they were rolled back since.
_ROWS_WRITTEN: Final = """
    SELECT wanted.name, coalesce(sum(s.n_tup_ins + s.n_tup_upd + s.n_tup_del), 0)
    FROM unnest(%s::text[], %s::text[]) AS wanted(name, quoted)
    LEFT JOIN LATERAL (SELECT to_regclass(wanted.quoted) AS relid
                       UNION SELECT relid FROM pg_partition_tree(to_regclass(wanted.quoted))) tree ON true
    LEFT JOIN pg_stat_xact_all_tables s ON s.relid = tree.relid GROUP BY 1
"""

#: As much of a statement as a message shows.
_SHOWN: Final = 120


@dataclass(slots=True)
class Write:
    """A statement that wrote to a table, and how many of its rows no change accounts for yet."""

    table: str
    verb: str
    rows: int
    sql: str

    def __str__(self) -> str:
        rows = "" if self.verb == "TRUNCATE" else f"{self.rows} row{'' if self.rows == 1 else 's'} by "
        return f"{self.table}: {rows}{self.verb} ({self.sql})"


class _Mark(NamedTuple):
    savepoint: str
    changes: int
    writes: int
    rows: Counter[str]


class Writes:
    """A block's writes to some tables, and the changes that account for them."""

    def __init__(self, connection: BaseDatabaseWrapper, tables: Collection[str]) -> None:
        self._connection = connection
        self._tables = {table.strip('"'): table for table in tables}
        self._writes: list[Write] = []
        self._changes: list[WalChange[Any]] = []
        self._shown: list[WalChange[Any]] = []
        self._marks: list[_Mark] = []
        self._rows_before: Counter[str] = Counter()

    @contextmanager
    def watch(self, changes: list[WalChange[Any]]) -> Iterator[None]:
        """Watch the connection. Changes come into the list, and out of it where a savepoint is rolled back."""
        self._shown = changes
        self._rows_before = self._count_rows()
        with self._connection.execute_wrapper(self._execute):
            yield

    def take(self, table: str, *verbs: str) -> bool:
        """Account for one row of the latest of these statements on a table; False where there is none."""
        for write in reversed(self._writes):
            if write.table == table.strip('"') and write.verb in verbs and write.rows > 0:
                write.rows -= 1
                return True
        return False

    def record(self, change: WalChange[Any]) -> None:
        """Account for what was written with a change."""
        self._changes.append(change)
        self._shown.append(change)

    def unseen(self) -> list[str]:
        """Describe what was written and no change accounts for."""
        left = [write for write in self._writes if write.rows > 0]
        told = Counter(change.table.name for change in self._changes)
        told.update({table: sum(write.rows for write in left if write.table == table) for table in self._tables})
        written = self._count_rows()
        written.subtract(self._rows_before)
        return [str(write) for write in left] + [
            f"{table}: {rows - told[table]} row(s) by something else than Django's statements (a cascade or trigger in "
            "the database, COPY, a function)"
            for table, rows in sorted(written.items())
            if rows > told[table]
        ]

    def _execute(
        self,
        execute: Callable[..., Any],
        sql: Any,
        params: Any,
        many: bool,
        context: dict[str, Any],
    ) -> Any:
        text = sql if isinstance(sql, str) else sql.as_string(None)
        savepoint = _SAVEPOINT.match(text)
        if savepoint:
            return self._at_savepoint(savepoint[1].upper(), savepoint[2], lambda: execute(sql, params, many, context))
        result = execute(sql, params, many, context)
        rows = context["cursor"].rowcount
        self._writes += self._read(text, rows)
        return result

    def _read(self, text: str, rows: int) -> Iterator[Write]:
        """Find the tables that a statement writes to; how many rows a WITH wrote, or a TRUNCATE, is not known."""
        start = _WRITING.match(text)
        if start is None:
            return
        first = start[1].upper()
        for found in _TARGET.finditer(text):
            verb = found[1].split()[0].upper()
            if verb == "COPY" and not _COPY_FROM.match(text, found.end()):
                continue
            count = max(rows, 1) if first == "WITH" or verb in ("TRUNCATE", "COPY") else rows
            for name in found[2].split(",") if verb == "TRUNCATE" else [found[2]]:
                table = name.strip().rpartition(".")[2].strip('"')
                if table in self._tables and count > 0:
                    yield Write(table, verb, count, " ".join(text.split())[:_SHOWN])
            if first == verb:
                return  # what follows is part of the same statement, such as ON CONFLICT DO UPDATE

    def _at_savepoint(self, verb: str, name: str, execute: Callable[[], Any]) -> Any:
        result = execute()
        if verb == "SAVEPOINT":
            self._marks.append(_Mark(name, len(self._changes), len(self._writes), self._count_rows()))
            return result
        known = [at for at, mark in enumerate(self._marks) if mark.savepoint == name]
        if verb == "RELEASE SAVEPOINT":
            del self._marks[known[-1] if known else len(self._marks) :]
        else:
            self._forget(self._marks[known[-1]] if known else _Mark(name, 0, 0, self._rows_before))
            del self._marks[known[-1] + 1 if known else 0 :]
        return result

    def _forget(self, mark: _Mark) -> None:
        """Take back what was written behind a savepoint; the server goes on counting it."""
        undone = {id(change) for change in self._changes[mark.changes :]}
        self._shown[:] = [change for change in self._shown if id(change) not in undone]
        del self._changes[mark.changes :]
        del self._writes[mark.writes :]
        self._rows_before += self._count_rows() - mark.rows

    def _count_rows(self) -> Counter[str]:
        if self._connection.vendor != "postgresql":
            return Counter()
        quoted = [self._connection.ops.quote_name(table) for table in self._tables.values()]
        with self._connection.cursor() as cursor:
            cursor.execute(_ROWS_WRITTEN, [[*self._tables], quoted])
            return Counter({name: int(rows) for name, rows in cursor.fetchall()})
