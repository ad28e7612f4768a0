"""The transaction that a change was committed in, and what the application said of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

from django_walsignals.protocol.lsn import LSN


class _End:
    """A transaction's end, which all that speak of the transaction learn of together."""

    __slots__ = ("lsn",)

    def __init__(self) -> None:
        self.lsn: LSN | None = None


class Transaction:
    """The transaction that a change was committed in; one object for all its changes that share a context."""

    __slots__ = ("_commit_lsn", "_committed_at", "_context", "_end", "_xid")

    def __init__(
        self, *, xid: int, commit_lsn: LSN, committed_at: datetime, context: Mapping[str, Any] | None = None
    ) -> None:
        self._xid = xid
        self._commit_lsn = commit_lsn
        self._committed_at = committed_at
        self._context: Mapping[str, Any] = MappingProxyType(dict(context or {}))
        self._end = _End()

    @property
    def xid(self) -> int:
        """The transaction's 32 bit number on the server."""
        return self._xid

    @property
    def commit_lsn(self) -> LSN:
        """Where its commit stands in the WAL; it identifies the transaction."""
        return self._commit_lsn

    @property
    def committed_at(self) -> datetime:
        """When it was committed, by the server's clock."""
        return self._committed_at

    @property
    def context(self) -> Mapping[str, Any]:
        """What the application said of the change, through ``django_walsignals.context``; empty if nothing.

        Whoever may write in the database may say it, too.
        """
        return self._context

    @property
    def end_lsn(self) -> LSN | None:
        """Where the record after its commit starts; None until its end has arrived.

        Receivers run inside a large transaction whose end has not.
        """
        return self._end.lsn

    def finish(self, end_lsn: LSN) -> None:
        """Take note of the transaction's end, once its Commit message has arrived."""
        self._end.lsn = end_lsn

    def with_context(self, context: Mapping[str, Any]) -> Transaction:
        """Make the same transaction for the changes from here on, which were made in another context."""
        other = Transaction(
            xid=self._xid, commit_lsn=self._commit_lsn, committed_at=self._committed_at, context=context
        )
        other._end = self._end
        return other

    def __repr__(self) -> str:
        return f"<Transaction {self.xid} at {self.commit_lsn}, committed {self.committed_at.isoformat()}>"
