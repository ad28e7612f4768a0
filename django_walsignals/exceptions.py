"""Every error that this library raises on purpose, and what its reader should do.

    WalSignalsError
    ├── ProtocolError            bytes that are not what the protocol says: a bug or a corrupt stream, please report
    ├── ConfigurationError       settings or server set-up: waiting can't mend it, the message says what does
    │   └── PrivilegeError       the role lacks a right: the message names the grant
    ├── ReplicationError         the server or the way to it
    │   ├── ConnectionLost       the connection is gone: connect again, from the checkpoint
    │   └── SlotInUse            another consumer holds the slot: wait for it, or stop the other
    ├── GapError                 changes between two positions can't be read any more: never skipped silently
    └── DeliveryError            a batch could not take effect, and its transaction was rolled back
        ├── ReceiverError        a receiver raised; ``__cause__`` is what it raised
        └── CheckpointMoved      another consumer moved the checkpoint: this one must let go

Only the standard library may be imported here: ``protocol`` depends on this module and on nothing else.
"""

from __future__ import annotations

from typing import ClassVar


class WalSignalsError(Exception):
    """Base of every error raised on purpose."""

    #: What a management command exits with: 1 error, 3 slot in use, 4 slot lost or a gap.
    exit_code: ClassVar[int] = 1


class ProtocolError(WalSignalsError):
    """Bytes of the replication stream that are not what the protocol says.

    ``tag`` is the message's first byte as a character ("" where there is none), ``offset`` the byte at which reading
    failed, counted from the start of the message.
    """

    def __init__(self, reason: str, *, tag: str = "", offset: int = 0) -> None:
        super().__init__(f"{reason} (message {tag!r}, byte {offset})")
        self.tag = tag
        self.offset = offset


class ConfigurationError(WalSignalsError):
    """Settings or a server's configuration that waiting can't mend."""


class PrivilegeError(ConfigurationError):
    """The database role lacks a right that the message names."""


class ReplicationError(WalSignalsError):
    """The server refused, or the way to it failed."""


class ConnectionLost(ReplicationError):
    """A connection to the server is gone, or could not be made; connecting again may work."""


class SlotInUse(ReplicationError):
    """Another consumer holds the replication slot."""

    exit_code = 3


class GapError(WalSignalsError):
    """Changes that were committed can't be read any more, so that going on would skip them."""

    exit_code = 4


class DeliveryError(WalSignalsError):
    """A batch could not take effect; its transaction was rolled back and its position not moved."""


class ReceiverError(DeliveryError):
    """A receiver raised. ``receiver`` is its dotted path, ``change_id`` the change's id."""

    def __init__(self, receiver: str, change_id: str, cause: BaseException) -> None:
        super().__init__(f"receiver {receiver} raised {type(cause).__name__} on change {change_id}: {_text_of(cause)}")
        self.receiver = receiver
        self.change_id = change_id


class CheckpointMoved(DeliveryError):
    """The checkpoint is no longer where this consumer left it: another consumer has taken over."""

    exit_code = 3


def _text_of(exc: BaseException) -> str:
    """Get an error's text; somebody else's ``__str__`` may raise anything."""
    try:
        return str(exc)
    except Exception as broken:  # noqa: BLE001  # whatever it is, it must not take the consumer with it
        return f"its text can't be had: {type(broken).__name__}"
