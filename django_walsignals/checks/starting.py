"""What ``walconsume`` makes of the checks of its database before it starts."""

from __future__ import annotations

import logging
from typing import Final

from django.core.checks import CheckMessage
from django.db import Error as DatabaseFailure

from django_walsignals.checks.database import before_start
from django_walsignals.checks.messages import number_of
from django_walsignals.conf import StreamConfig
from django_walsignals.exceptions import ConfigurationError

logger = logging.getLogger(__name__)

#: With these a start would get as far as making a slot, which holds back log, and then fail.
_STOPS: Final = frozenset({"W023"})

#: Said along with those: by itself it is left to the server, which knows what its role may better than we do.
_DOUBTS: Final = frozenset({"W011"})

#: With these a stream runs, until it does not.
_WARNS: Final = frozenset({"W015", "W017", "W019", "W031"})


def check_before_start(config: StreamConfig) -> None:
    """Log what endangers the stream; raise `ConfigurationError`, with a line for each, for what would make it fail.

    What is in the setting SILENCED_SYSTEM_CHECKS is passed over. A database that is out of reach is left to the start,
    which has words and an exit code for it.
    """
    try:
        found = [message for message in before_start(config) if not message.is_silenced()]
    except DatabaseFailure as exc:
        logger.debug("The database can't be checked before the start: %s", exc)
        return
    numbers = {number_of(message) for message in found}
    if numbers & _STOPS:
        lines = [_line(message) for message in found if number_of(message) in _STOPS | _DOUBTS]
        raise ConfigurationError("\n".join(lines))
    for message in found:
        level = logging.WARNING if number_of(message) in _WARNS else logging.INFO
        logger.log(level, "%s", _line(message))


def _line(message: CheckMessage) -> str:
    return f"{message.msg} {message.hint} ({message.id})"
