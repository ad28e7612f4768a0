"""A last will for processes: what must be tidied up even if this process is killed with SIGKILL.

Nothing here knows what is tidied up; see `postgres.py` and the demo for that.
"""

import subprocess
from collections.abc import Sequence
from typing import Self

WAIT_FOR_OUR_END = 'read -r _; exec "$@"'
"""A pipe's reader sees its end when the last writer is gone, however it went."""


class Guard:
    """A tiny process that runs `command` when this one ends, unless released before."""

    def __init__(self, command: Sequence[str], *, user: str | None = None) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", WAIT_FOR_OUR_END, "guard", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            user=user,
            group=user,
            extra_groups=[] if user else None,
            start_new_session=True,  # Ctrl-C in a terminal reaches everyone else
        )

    @classmethod
    def terminating(cls, pid: int) -> Self:
        """Return a guard that sends SIGTERM to process `pid`."""
        return cls(["kill", "-TERM", str(pid)])

    def release(self) -> None:
        """Forget the command: what it would have done has been done properly."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()
