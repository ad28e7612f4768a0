"""Dead letters: what came through the WAL, written down so that later code can decode it again, and read back.

A row is a mapping from column names to text, with None for NULL; a column whose value is not known is left out. The
values of excluded fields are left out too.
"""

from __future__ import annotations

import base64
import traceback
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from django.apps import apps
from django.db import connections

from django_walsignals.binding.plan import TablePlan, stored_name
from django_walsignals.binding.registry import TableRegistry
from django_walsignals.changes import UNKNOWN, Operation, Row, WalChange, WalTruncate
from django_walsignals.conf import StreamConfig, get_stream, stream_aliases
from django_walsignals.delivery.routing import ReceivedMessage, Target
from django_walsignals.exceptions import ConfigurationError, ReceiverError
from django_walsignals.models import DeadLetter
from django_walsignals.protocol.lsn import LSN
from django_walsignals.protocol.messages import Column, Relation
from django_walsignals.selection import excluded_columns
from django_walsignals.transactions import Transaction

Sent = WalChange[Any] | WalTruncate | ReceivedMessage


def describe(sent: Sent) -> dict[str, Any]:
    """Write down what a receiver could not take, as fields of a `DeadLetter`."""
    if isinstance(sent, WalChange):
        return {
            "kind": DeadLetter.Kind.CHANGE,
            "model": sent.model._meta.label,
            "pk_text": storable(_pk_text(sent)),
            "operation": sent.operation,
            "payload": _change_payload(sent),
        }
    if isinstance(sent, WalTruncate):
        relation = {"schema": sent.table.schema, "name": sent.table.name}
        options = {"cascade": sent.cascade, "restart_identity": sent.restart_identity}
        payload = {"relation": relation, **options, **_place(sent.transaction, sent.ordinal)}
        return {"kind": DeadLetter.Kind.TRUNCATE, "model": sent.model._meta.label, "payload": payload}
    payload = {"prefix": sent.prefix, "content": base64.b64encode(sent.content).decode()}
    place = {} if sent.transaction is None else _place(sent.transaction, sent.ordinal)
    return {"kind": DeadLetter.Kind.MESSAGE, "payload": {**payload, **place}}


def revive(letter: DeadLetter, config: StreamConfig) -> Sent:
    """Make again what a receiver could not take, with today's models; raise `ConfigurationError` for a model gone."""
    payload = letter.payload
    transaction = _transaction(payload)
    commit_lsn, ordinal = _parse_id(letter.change_id)
    if letter.kind == DeadLetter.Kind.MESSAGE:
        content = base64.b64decode(payload["content"])
        return ReceivedMessage(payload["prefix"], content, transaction, commit_lsn, ordinal)
    try:
        model = apps.get_model(letter.model)
    except LookupError as exc:
        raise ConfigurationError(f"Dead letter {letter.pk} is of {letter.model}, which no app has any more.") from exc
    relation = _relation(payload["relation"])
    connection = connections[config.database]
    registry = TableRegistry.load(connection, [])  # connects, too: the connection's adapters are the plan's
    plan: TablePlan[Any] = TablePlan(
        relation,
        model,
        connection,
        stream=config.alias,
        excluded=excluded_columns(config),
        base_types=registry.base_types,
    )
    assert transaction is not None  # noqa: S101  # only a message may have none
    if letter.kind == DeadLetter.Kind.TRUNCATE:
        options = payload["cascade"], payload["restart_identity"]
        return WalTruncate(model, plan.table, *options, transaction, ordinal, config.alias, config.database)
    old, new = (plan.keep_back(_row(payload[side], relation)) for side in ("old", "new"))
    return WalChange(plan, Operation(letter.operation), old, new, transaction, ordinal)


def receiver_name(target: Target, targets: Sequence[Target]) -> str:
    """Name a receiver among those of one change: its path, and from the second one of the same path on a number."""
    same = [other for other in targets if other.path == target.path]
    at = next(at for at, other in enumerate(same) if other is target)
    return f"{target.path}#{at + 1}" if at else target.path


def describe_error(exc: ReceiverError) -> dict[str, str]:
    """Write down what a receiver raised, as fields of a `DeadLetter`."""
    cause = exc.__cause__ or exc
    trace = "".join(traceback.format_exception(cause))
    return {"error": storable(f"{type(cause).__name__}: {_text_of(cause)}"), "traceback": storable(trace)}


def storable(text: str) -> str:
    """Spell out what PostgreSQL has no room for in a text: NUL and lone surrogates."""
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")


class ShownDiff(NamedTuple):
    """What a dead letter's change did to the row, as text; ``is_raw``: as the database wrote it, not decoded."""

    rows: list[tuple[str, str, str]]
    is_raw: bool


def shown_diff(letter: DeadLetter) -> ShownDiff:
    """Show a change's fields before and after; the columns as they came, where today's code can't decode them.

    A field that is excluded today is not shown, even where it was not excluded when the letter was written.
    """
    try:
        change = revive(letter, get_stream(letter.stream))
        diff = change.diff if isinstance(change, WalChange) else {}
        operation = letter.operation
        return ShownDiff(
            [(name, *_sides(operation, _shown(old), _shown(new))) for name, (old, new) in diff.items()], is_raw=False
        )
    except Exception:  # noqa: BLE001  # whatever a field raises may be why the letter is here
        return ShownDiff(_raw_diff(letter), is_raw=True)


def _raw_diff(letter: DeadLetter) -> list[tuple[str, str, str]]:
    old, new = letter.payload.get("old") or {}, letter.payload.get("new") or {}
    hidden = _hidden_today(letter)
    return [
        (name, *_sides(letter.operation, *(_shown(row.get(name, UNKNOWN)) for row in (old, new))))
        for name in dict.fromkeys([*new, *old])
        if name not in hidden and (not old or not new or old.get(name, UNKNOWN) != new.get(name, UNKNOWN))
    ]


def _hidden_today(letter: DeadLetter) -> set[str]:
    """Name the columns that today's settings exclude, in any stream where the letter's own is gone."""
    try:
        model = apps.get_model(letter.model)
    except (LookupError, ValueError):
        return set()
    aliases = [letter.stream] if letter.stream in stream_aliases() else stream_aliases()
    tables = [excluded_columns(get_stream(alias)) for alias in aliases]
    return {stored_name(column) for excluded in tables for column in excluded.get(model._meta.db_table, ())}


def _sides(operation: str, old: str, new: str) -> tuple[str, str]:
    """Leave empty the side on which there is no row."""
    return "" if operation == Operation.INSERT else old, "" if operation == Operation.DELETE else new


def _shown(value: Any) -> str:
    if value is UNKNOWN:
        return "(unknown)"
    return "NULL" if value is None else str(value)


def _text_of(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001  # an error that can't be shown is an error all the same
        return "(its text can't be shown)"


def _pk_text(change: WalChange[Any]) -> str:
    """Write the primary key as today's code shows it; undecoded where that is just what fails."""
    try:
        return str(change.pk)
    except Exception:  # noqa: BLE001  # whatever a custom field raises, the letter must be written
        plan: Any = change.binding
        row = _text(change.rows[1] or change.rows[0], plan.relation, plan.excluded_columns) or {}
        columns = [stored_name(str(field.column)) for field in change.model._meta.pk_fields]
        return ", ".join(str(row.get(column, UNKNOWN)) for column in columns)


def _change_payload(change: WalChange[Any]) -> dict[str, Any]:
    plan: Any = change.binding
    relation: Relation = plan.relation
    hidden = plan.excluded_columns
    old, new = change.rows
    return {
        "relation": {
            "oid": relation.relation_id,
            "schema": relation.namespace,
            "name": relation.name,
            "replica_identity": relation.replica_identity,
            "columns": [[*column] for column in relation.columns if column.name not in hidden],
        },
        "old": _text(old, relation, hidden),
        "new": _text(new, relation, hidden),
        **_place(change.transaction, change.ordinal),
    }


def _text(row: Row | None, relation: Relation, hidden: frozenset[str]) -> dict[str, str | None] | None:
    if row is None:
        return None
    return {
        column.name: None if value is None else value.decode(errors="backslashreplace")
        for column, value in zip(relation.columns, row, strict=True)
        if value is not UNKNOWN and column.name not in hidden
    }


def _row(text: Mapping[str, str | None] | None, relation: Relation) -> Row | None:
    if text is None:
        return None
    values = (text.get(column.name, UNKNOWN) for column in relation.columns)
    return [value.encode() if isinstance(value, str) else value for value in values]


def _relation(described: Mapping[str, Any]) -> Relation:
    columns = tuple(Column(*column) for column in described.get("columns", ()))
    identity = described.get("replica_identity", "d")
    return Relation(described.get("oid", 0), described["schema"], described["name"], identity, columns)


def _place(transaction: Transaction, ordinal: int) -> dict[str, Any]:
    return {
        "transaction": {
            "xid": transaction.xid,
            "commit_lsn": str(transaction.commit_lsn),
            "end_lsn": None if transaction.end_lsn is None else str(transaction.end_lsn),
            "committed_at": transaction.committed_at.isoformat(),
            "context": _storable_json(dict(transaction.context)),
        },
        "ordinal": ordinal,
    }


def _storable_json(value: Any) -> Any:
    """Do as `storable` with every text in a JSON value."""
    if isinstance(value, dict):
        return {storable(str(key)): _storable_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_storable_json(item) for item in value]
    return storable(value) if isinstance(value, str) else value


def _transaction(payload: Mapping[str, Any]) -> Transaction | None:
    described = payload.get("transaction")
    if described is None:
        return None
    transaction = Transaction(
        xid=described["xid"],
        commit_lsn=LSN.parse(described["commit_lsn"]),
        committed_at=datetime.fromisoformat(described["committed_at"]),
        context=described["context"],
    )
    if described["end_lsn"]:
        transaction.finish(LSN.parse(described["end_lsn"]))
    return transaction


def _parse_id(change_id: str) -> tuple[LSN, int]:
    lsn, _, ordinal = change_id.rpartition("/")
    return LSN.parse(lsn), int(ordinal)
