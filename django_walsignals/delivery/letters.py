"""Dead letters: what came through the WAL, written down so that later code can decode it again, and read back.

A row is a mapping from column names to text, with None for NULL; a column whose value is not known is left out. The
values of excluded fields are left out too.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.apps import apps
from django.db import connections

from django_walsignals.binding.plan import TablePlan
from django_walsignals.changes import UNKNOWN, Operation, Row, Transaction, WalChange, WalTruncate
from django_walsignals.conf import StreamConfig
from django_walsignals.delivery.routing import ReceivedMessage
from django_walsignals.exceptions import ConfigurationError
from django_walsignals.models import DeadLetter
from django_walsignals.protocol.lsn import LSN
from django_walsignals.protocol.messages import Column, Relation

Sent = WalChange[Any] | WalTruncate | ReceivedMessage


def describe(sent: Sent) -> dict[str, Any]:
    """Write down what a receiver could not take, as fields of a `DeadLetter`."""
    if isinstance(sent, WalChange):
        return {
            "kind": DeadLetter.Kind.CHANGE,
            "model": sent.model._meta.label,
            "pk_text": str(sent.pk),
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
    plan: TablePlan[Any] = TablePlan(
        relation,
        model,
        connections[config.database],
        stream=config.alias,
        excluded=config.exclude.get(model._meta.label_lower, frozenset()),
    )
    assert transaction is not None  # noqa: S101  # only a message may have none
    if letter.kind == DeadLetter.Kind.TRUNCATE:
        options = payload["cascade"], payload["restart_identity"]
        return WalTruncate(model, plan.table, *options, transaction, ordinal, config.alias, config.database)
    old, new = _row(payload["old"], relation), _row(payload["new"], relation)
    return WalChange(plan, Operation(letter.operation), old, new, transaction, ordinal)


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
        column.name: None if value is None else value.decode()
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
            "context": dict(transaction.context),
        },
        "ordinal": ordinal,
    }


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
