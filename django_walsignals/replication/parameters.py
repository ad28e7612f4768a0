"""The connection parameters of a replication connection, made of those of an ordinary one.

https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from psycopg import pq

#: The server's side of dead-peer detection; anything that the caller's own options say comes later and wins.
#: wal_sender_timeout, in milliseconds: how soon a vanished consumer's slot is free again. tcp_keepalives: in seconds.
_SERVER_SIDE: Final = {
    "wal_sender_timeout": "30000",
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}

#: The client's side, in seconds and for tcp_user_timeout in milliseconds: a half-open connection is found in a minute.
_CLIENT_SIDE: Final = {
    "keepalives": "1",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
    "connect_timeout": "10",
    "application_name": "django-walsignals",
}


def replication_parameters(ordinary: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Merge an ordinary connection's parameters and the overrides; keys that libpq does not know are left out."""
    known = libpq_keywords()
    merged = {**_CLIENT_SIDE, **{key: value for key, value in ordinary.items() if key in known and value is not None}}
    own_options = [str(source["options"]) for source in (ordinary, overrides) if source.get("options")]
    merged.update(overrides)
    merged["options"] = " ".join([_switches(_SERVER_SIDE), *own_options])
    # "If the value is database, the connection goes into logical replication mode."
    merged["replication"] = "database"
    return merged


def libpq_keywords() -> set[str]:
    """Name the parameters that libpq knows."""
    return {option.keyword.decode() for option in pq.Conninfo.get_defaults()}


def _switches(settings: Mapping[str, str]) -> str:
    return " ".join(f"-c {name}={value}" for name, value in settings.items())
