"""Every system check by its id, and the one place that makes a message: an id that is not listed here can't be used.

The letter is the level: E an error, which stops ``check``, ``migrate`` and every other command; W a warning; I a
remark. What is found in a database is never an error: a lost slot must not keep anybody from running ``migrate``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from django.core.checks import CheckMessage, Error, Info
from django.core.checks import Warning as CheckWarning

PREFIX: Final = "walsignals."

#: When each is reported.
CATALOGUE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "E001": "WALSIGNALS is not a dict of dicts",
        "E002": "a key of a stream's settings is unknown",
        "E003": "a setting can't have that value",
        "E004": "a slot's name can't be one, or two streams would share a slot or a publication",
        "E005": "psycopg 3.3 or later is not installed",
        "E006": "MODELS, EXCLUDE or ROWS names what there is not, or what can't be published",
        "E007": "REPLICATION_OPTIONS has a key that libpq does not know",
        "W001": "a stream's DATABASE is not PostgreSQL",
        "W002": "a receiver's stream= is no stream of WALSIGNALS, so that it is never called",
        "W003": "a receiver's sender is published by no stream of its own, so that it is never called",
        "W004": "a receiver's fields= names what EXCLUDE keeps from it, so that it hears of every update",
        "W005": "a receiver's sender, or an entry of MODELS, is a proxy: the changes come as the concrete model's",
        "W006": "MODELS names a model that is swapped out, and has no table",
        "W010": "wal_level is not logical",
        "W011": "the role may not start replication",
        "W012": "the publication is missing, or out of step with MODELS, EXCLUDE or ROWS",
        "W013": "a table's replica identity is not what REPLICA_IDENTITY asks for",
        "W014": "the slot is missing",
        "W015": "the slot holds back much of the log",
        "W016": "max_slot_wal_keep_size has no bound",
        "W017": "the publication holds all tables, or our own",
        "W018": "the slot is lost",
        "W019": "the slot is about to be lost",
        "W021": "the server is older than PostgreSQL 15",
        "W022": "the server is a standby",
        "W023": "the role lacks a right on the checkpoints' table",
        "W024": "something is to be set up that the role may not",
        "W025": "all of the server's replication slots, or walsenders, are in use",
        "W026": "idle_replication_slot_timeout would lose the slot of a consumer that is stopped (PostgreSQL 18)",
        "W027": "synchronous_standby_names makes every COMMIT wait for the consumer",
        "W028": "the slot is another database's or another plugin's",
        "W029": "the stream can't be set up: a table is missing, or publishing it would break the application's writes",
        "W030": "the database can't be asked",
        "W031": "the role lacks a right on the dead letters' table",
        "I001": "no consumer is running",
        "I002": "the slot has no failover, and the server has standbys (PostgreSQL 17 and later)",
    }
)

_BY_LETTER: Final[Mapping[str, Callable[..., CheckMessage]]] = {"E": Error, "W": CheckWarning, "I": Info}


def report(number: str, text: str, hint: str) -> CheckMessage:
    """Make the message of a check."""
    if number not in CATALOGUE:
        raise LookupError(f"There is no check {number}")
    return _BY_LETTER[number[0]](text, hint=hint, id=f"{PREFIX}{number}")


def number_of(message: CheckMessage) -> str:
    """Give a message's id without what all of ours begin with."""
    return str(message.id).removeprefix(PREFIX)
