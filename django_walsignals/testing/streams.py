"""One test's stream, from set-up to the end: what the fixture ``wal_stream`` yields."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from django.db.models import Model

from django_walsignals.changes import WalChange
from django_walsignals.conf import DEFAULT_STREAM, get_stream
from django_walsignals.selection import published_models
from django_walsignals.signals import post_wal_change
from django_walsignals.testing.consuming import consume_pending, drop_stream, publish_listened, set_up_stream


class WalStream:
    """A stream that is set up on entry and gone on exit.

    >>> with WalStream() as stream:
    ...     Order.objects.filter(pk=1).update(status="paid")
    ...     [change] = stream.consume()

    Where no receiver names a model yet there is nothing to publish: then `listen` sets it up.
    """

    def __init__(self, alias: str = DEFAULT_STREAM) -> None:
        self.alias = alias
        #: What `consume` has delivered so far.
        self.changes: list[WalChange[Any]] = []
        self._heard: list[type[Model] | str] = []
        self._is_set_up = False

    def consume(self) -> list[WalChange[Any]]:
        """Deliver what was committed since the last call; return the changes. See `consume_pending`."""
        delivered = consume_pending(self.alias)
        self.changes += delivered
        return delivered

    def listen(self, *models: type[Model] | str) -> None:
        """Have the changes of these models from here on, also where no receiver of yours wants them."""
        for model in models:
            post_wal_change.connect(_hear, sender=model, dispatch_uid=self._uid, stream=self.alias)
            self._heard.append(model)
        if self._is_set_up:
            publish_listened(self.alias)
        else:
            self._set_up()

    def drop(self) -> None:
        """Stop listening, and drop the slot, the publication and the checkpoint."""
        for model in self._heard:
            post_wal_change.disconnect(sender=model, dispatch_uid=self._uid)
        self._heard.clear()
        drop_stream(self.alias)
        self._is_set_up = False

    def __enter__(self) -> Self:
        if published_models(get_stream(self.alias)):
            self._set_up()
        else:
            drop_stream(self.alias)  # what an earlier run left; and what can't work is said now
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.drop()

    @property
    def _uid(self) -> str:
        return f"django_walsignals.testing {id(self)}"

    def _set_up(self) -> None:
        set_up_stream(self.alias)
        self._is_set_up = True


def _hear(**kwargs: Any) -> None:
    """Receive a change, so that it is delivered."""
