"""From frames to a batch: which changes somebody wants, in order, and the position behind the last of them.

A transaction is never kept: what is in a batch may be a part of one. Changes that a checkpoint already covers, which
the server sends again after a restart, are counted (the ordinal identifies a change) and passed over.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from django_walsignals.binding.builder import rows_of
from django_walsignals.changes import WalChange, WalTruncate
from django_walsignals.delivery.position import Position
from django_walsignals.delivery.routing import OPERATION_OF, ReceivedMessage, Router, Target
from django_walsignals.exceptions import ProtocolError
from django_walsignals.metadata import CONTEXT_PREFIX, decode, is_reserved
from django_walsignals.protocol import pgoutput
from django_walsignals.protocol.frames import to_datetime
from django_walsignals.protocol.lsn import LSN
from django_walsignals.protocol.messages import Begin, Commit, LogicalMessage, Relation, RowMessage, Truncate
from django_walsignals.transactions import Transaction

logger = logging.getLogger(__name__)

#: A batch ends at this many bytes of rows, so that memory is bounded whatever the rows' size.
MAX_BATCH_BYTES: Final = 16 * 1024 * 1024

Event = tuple[Any, tuple[Target, ...]]


class Batch:
    """Changes that are delivered in one database transaction, with the checkpoint that covers them."""

    __slots__ = ("events", "max_bytes", "max_events", "size")

    def __init__(self, max_events: int, max_bytes: int = MAX_BATCH_BYTES) -> None:
        self.max_events = max_events
        self.max_bytes = max_bytes
        self.events: list[Event] = []
        self.size = 0

    @property
    def is_full(self) -> bool:
        """Say whether the batch must be delivered before more is taken in."""
        return len(self.events) >= self.max_events or self.size >= self.max_bytes

    def add(self, event: Event, size: int) -> None:
        """Put something in that receivers want, of so many bytes."""
        self.events.append(event)
        self.size += size

    def clear(self) -> None:
        """Start a new batch."""
        self.events = []
        self.size = 0


class Intake:
    """The reading side of a session: knows the transaction in hand, and fills the batch."""

    def __init__(self, router: Router, batch: Batch, done: Position, *, stream: str, using: str) -> None:
        self._router = router
        self._batch = batch
        self._done = done
        self._stream = stream
        self._using = using
        self._last = done
        self._transaction: Transaction | None = None
        self._ordinal = 0
        self._is_context_odd = False

    @property
    def position(self) -> Position:
        """The position behind the last change taken in, wanted or not."""
        transaction = self._transaction
        if transaction is None or not self._ordinal or transaction.commit_lsn < self._last.lsn:
            return self._last
        return max(self._last, Position(self._last.lsn, transaction.commit_lsn, self._ordinal))

    @property
    def in_transaction(self) -> bool:
        """Say whether a transaction is in hand."""
        return self._transaction is not None

    def feed(self, message: bytes) -> None:
        """Take in one pgoutput message."""
        operation = OPERATION_OF.get(message[0]) if message else None
        if operation is None:
            self._feed_other(message)
            return
        transaction = self._count()
        if transaction is None:
            return
        route = self._router.route(pgoutput.relation_id(message))
        if route.plan is None:
            self._router.count_unmapped(route)
            return
        targets = route.targets[operation]
        if not targets:
            return
        old, new = rows_of(self._decode_row(message), route.relation, is_mixed=route.is_mixed)
        targets = tuple([target for target in targets if target.wants(old, new)])
        if targets:
            if route.plan.excluded_at:
                old, new = route.plan.keep_back(old), route.plan.keep_back(new)
            change = WalChange(route.plan, operation, old, new, transaction, self._ordinal)
            self._batch.add((change, targets), len(message))

    def skip_to(self, wal_end: LSN) -> None:
        """Take note that all that is published before ``wal_end`` has come, unless a transaction is in hand."""
        if self._transaction is None:
            self._pass(wal_end)

    def _pass(self, end: LSN) -> None:
        """Move to the end of something whole, but not behind what a checkpoint says of a later transaction."""
        last = self._last
        if end > last.lsn:
            self._last = last._replace(lsn=end) if last.commit_lsn >= end else Position(end)

    @staticmethod
    def _decode_row(message: bytes) -> RowMessage:
        return pgoutput.decode(message)  # type: ignore[return-value]  # by its first byte

    def _feed_other(self, message: bytes) -> None:
        match pgoutput.decode(message):
            case Begin() as begin:
                self._begin(begin)
            case Commit() as commit:
                self._commit(commit)
            case Relation() as relation:
                self._router.add(relation)
            case Truncate() as truncate:
                self._truncate(truncate, len(message))
            case LogicalMessage() as emitted:
                self._message(emitted, len(message))

    def _begin(self, begin: Begin) -> None:
        if self._transaction is not None:
            raise ProtocolError("a transaction begins inside another one", tag="B")
        self._transaction = Transaction(
            xid=begin.xid, commit_lsn=begin.final_lsn, committed_at=to_datetime(begin.committed_at)
        )
        self._ordinal = 0

    def _commit(self, commit: Commit) -> None:
        transaction = self._transaction
        if transaction is None or transaction.commit_lsn != commit.commit_lsn:
            raise ProtocolError(f"the commit at {commit.commit_lsn} ends no transaction in hand", tag="C")
        transaction.finish(commit.end_lsn)
        self._transaction = None
        self._pass(commit.end_lsn)

    def _count(self) -> Transaction | None:
        """Give the next change of the transaction in hand its number; None for a change that was done before."""
        transaction = self._transaction
        if transaction is None:
            raise ProtocolError("a change outside a transaction")
        self._ordinal += 1
        return None if self._done.covers(transaction.commit_lsn, self._ordinal) else transaction

    def _truncate(self, truncate: Truncate, size: int) -> None:
        transaction = self._count()
        if transaction is None:
            return
        for relation_id in truncate.relation_ids:
            route = self._router.route(relation_id)
            if route.plan is None:
                self._router.count_unmapped(route)
                continue
            targets = self._router.truncate_targets(route.plan.model)
            sent = WalTruncate(
                route.plan.model,
                route.plan.table,
                truncate.cascade,
                truncate.restart_identity,
                transaction,
                self._ordinal,
                self._stream,
                self._using,
            )
            if targets:
                self._batch.add((sent, targets), size)

    def _message(self, emitted: LogicalMessage, size: int) -> None:
        """Take in a message; one outside a transaction is a transaction of its own, of one change."""
        if emitted.transactional:
            if emitted.prefix == CONTEXT_PREFIX:
                self._set_context(emitted.content)  # also where it was done before: what follows may not be
            transaction = self._count()
            if transaction is None:
                return
            commit_lsn, ordinal = transaction.commit_lsn, self._ordinal
        else:
            transaction, commit_lsn, ordinal = None, emitted.lsn, 1
            if self._done.covers(commit_lsn, ordinal):
                return
            self._last = max(self._last, Position(self._last.lsn, commit_lsn, ordinal))
        targets = self._router.message_targets()
        if targets and not is_reserved(emitted.prefix):
            sent = ReceivedMessage(emitted.prefix, emitted.content, transaction, commit_lsn, ordinal)
            self._batch.add((sent, targets), size)

    def _set_context(self, content: bytes) -> None:
        """Have the transaction's changes from here on carry what its application said of them."""
        if self._transaction is None:
            return  # which is an error, as for any change outside a transaction
        try:
            self._transaction = self._transaction.with_context(decode(content))
        except ValueError as exc:
            if not self._is_context_odd:
                logger.warning("A message with prefix %s is passed over, and any more like it: %s", CONTEXT_PREFIX, exc)
            self._is_context_odd = True
