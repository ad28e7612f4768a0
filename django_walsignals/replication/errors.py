"""psycopg's errors into ours, each saying what to do: the one border between the two.

Server messages are told apart by SQLSTATE, and the refusals that come before a session exists, which psycopg gives no
SQLSTATE, by their text. https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg

from django_walsignals.exceptions import (
    ConfigurationError,
    ConnectionLost,
    GapError,
    PrivilegeError,
    ReplicationError,
    SlotInUse,
)

_REPLICATION_GRANT: Final = (
    "The role needs the REPLICATION attribute: ALTER ROLE … REPLICATION (on a managed service, its own grant, such as "
    "rds_replication), and pg_hba.conf must let it into this database."
)

#: By SQLSTATE: the error to raise, and what to do, beyond the server's words.
_BY_SQLSTATE: Final[dict[str, tuple[type[ReplicationError | ConfigurationError | GapError], str]]] = {
    "55006": (SlotInUse, "Another consumer holds it: stop that one, or wait."),
    "42704": (
        GapError,
        (
            "The slot or publication is gone, and with it what it would have brought. Nothing was created in its place: "
            "to go on without that, run manage.py walconsume --accept-gap"
        ),
    ),
    "42501": (PrivilegeError, _REPLICATION_GRANT),
    "53400": (
        ConfigurationError,
        "Raise max_replication_slots and restart the server, or drop a slot that nobody uses.",
    ),
    "42602": (ConfigurationError, "Set SLOT to lower-case letters, digits and underscores."),
    "0A000": (
        ConfigurationError,
        "PostgreSQL 15 or later is needed, and publications that agree on a table's columns.",
    ),
    "57014": (ConnectionLost, "Somebody cancelled the stream."),
    "57P01": (ConnectionLost, "The server ended the connection."),
    "57P02": (ConnectionLost, "The server crashed."),
    "57P03": (ConnectionLost, "The server is starting up or shutting down."),
}

#: By what the text of a refused connection holds.
_BY_TEXT: Final[tuple[tuple[re.Pattern[str], type[ReplicationError | ConfigurationError], str], ...]] = (
    (
        re.compile("permission denied to start WAL sender|must be superuser or replication role"),
        PrivilegeError,
        _REPLICATION_GRANT,
    ),
    (
        re.compile("no pg_hba.conf entry"),
        ConfigurationError,
        "pg_hba.conf needs a line for this database (logical replication does not match the keyword replication).",
    ),
    (
        re.compile(
            "password authentication failed|role .* does not exist|database .* does not exist|no password supplied"
        ),
        ConfigurationError,
        "Check DATABASES and REPLICATION_OPTIONS.",
    ),
    (
        re.compile("unsupported startup parameter"),
        ConfigurationError,
        "That is PgBouncer: point host and port in REPLICATION_OPTIONS at PostgreSQL itself.",
    ),
    (
        re.compile("max_wal_senders"),
        ConnectionLost,
        "Where it stays so, raise max_wal_senders and restart the server.",
    ),
)


def translate(exc: psycopg.Error, doing: str) -> ReplicationError | ConfigurationError | GapError:
    """Turn an error of psycopg into one of ours; ``doing`` completes "Could not …"."""
    text = " ".join(str(exc).split())
    kind, advice = _classify(exc.sqlstate, text, exc)
    return kind(f"Could not {doing}: {text}. {advice}".rstrip())


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Translate what psycopg raises inside."""
    try:
        yield
    except psycopg.Error as exc:
        raise translate(exc, doing) from exc


def _classify(
    sqlstate: str | None, text: str, exc: psycopg.Error
) -> tuple[type[ReplicationError | ConfigurationError | GapError], str]:
    if sqlstate in _BY_SQLSTATE:
        return _BY_SQLSTATE[sqlstate]
    for pattern, kind, advice in _BY_TEXT:
        if pattern.search(text):
            return kind, advice
    if sqlstate is None and isinstance(exc, psycopg.OperationalError):
        return ConnectionLost, ""
    return ReplicationError, ""
