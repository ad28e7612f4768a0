"""What a scrape asks the databases: a stream's status, over connections of its own, and never for long."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from django.db import Error, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from django_walsignals.conf import StreamConfig
from django_walsignals.status import State, StreamStatus, read_status

logger = logging.getLogger(__name__)

#: How long a scrape waits for a connection, and for each of its queries, in seconds. Prometheus gives a scrape 10.
CONNECT_TIMEOUT: Final = 2
QUERY_TIMEOUT: Final = 2

_LIMIT: Final = "SELECT set_config('statement_timeout', %s, true)"


class StatusReader:
    """Reads one stream's status; None where the databases don't answer in time."""

    def __init__(self, config: StreamConfig) -> None:
        self._stream = config.alias
        self._aliases = {config.database, config.checkpoint_database}
        self._lock = threading.Lock()

    def __call__(self) -> StreamStatus | None:
        """Read it, in a thread other than the consumer's; two scrapes at once take turns."""
        with self._lock:
            try:
                with _impatient(self._aliases):
                    status = read_status(self._stream)
            except Error as exc:
                logger.debug("A scrape got no answer: %s", exc)
                return None
        return None if status.state is State.UNREACHABLE else status


@contextmanager
def _impatient(aliases: set[str]) -> Iterator[None]:
    """Have connections of this thread's own that give up soon, and close them afterwards."""
    try:
        with ExitStack() as stack:
            for alias in aliases:
                _refuse_to_wait(connections[alias])
                stack.enter_context(transaction.atomic(using=alias))
                with connections[alias].cursor() as cursor:
                    cursor.execute(_LIMIT, [f"{QUERY_TIMEOUT}s"])
            yield
    finally:
        connections.close_all()


def _refuse_to_wait(connection: BaseDatabaseWrapper) -> None:
    """Have this thread's wrapper connect within a time, and not from a pool, which the consumer may need."""
    options = {**connection.settings_dict["OPTIONS"], "connect_timeout": CONNECT_TIMEOUT}
    options.pop("pool", None)
    connection.settings_dict = {**connection.settings_dict, "OPTIONS": options}
