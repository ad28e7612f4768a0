"""A TCP proxy between a consumer and its server, whose network fails as told.

Plain threads: one that accepts, and two for each connection.
"""

import select
import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

#: How often a thread looks whether something has changed, in seconds.
_LOOK_EVERY = 0.05

#: How long a server has for last words, in seconds.
_HEARD_AFTER = 0.5


class Proxy:
    """Forwards to a server. What happens from now on is chosen by `cut`, `stall`, `slow_down` and `mend`."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_LOOK_EVERY)
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._closing = threading.Event()
        self._flowing = threading.Event()
        self._flowing.set()
        self._refusing = False
        self._dead: set[int] = set()
        self._bytes_a_second: float | None = None
        self._last_words: bytes | None = None
        #: Connections accepted so far.
        self.accepted = 0
        self._start(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._closing.set()
        self._flowing.set()
        self.cut()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def cut(self, *, refuse: bool = False) -> None:
        """Close every connection; with ``refuse`` new ones are closed at once too, until `mend`."""
        self._refusing = refuse
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def stall(self) -> None:
        """Accept, read nothing and forward nothing, until `mend`."""
        self._flowing.clear()

    def lose(self) -> None:
        """Half-open: the connections that are open now forward nothing any more, and are not closed; new ones work."""
        self._dead.update(id(each) for each in self._open)

    def cut_after(self, words: bytes) -> None:
        """Cut every connection once a client has sent these words; the server gets them, and its answer is lost."""
        self._last_words = words

    def slow_down(self, bytes_a_second: float) -> None:
        """Forward slowly from now on."""
        self._bytes_a_second = bytes_a_second

    def mend(self) -> None:
        """Forward as a network should; connections that were lost stay so."""
        self._refusing = False
        self._bytes_a_second = None
        self._flowing.set()

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            self.accepted += 1
            try:
                server = None if self._refusing else socket.create_connection(self._target)
            except OSError:  # the server is down
                server = None
            if server is None:
                client.close()
                continue
            for each in (client, server):
                each.settimeout(None)  # two threads use it: one's time-out would be the other's error
                self._open.append(each)
            ended = threading.Barrier(2)
            self._start(self._forward, client, server, ended)
            self._start(self._forward, server, client, ended)

    def _forward(self, source: socket.socket, sink: socket.socket, ended: threading.Barrier) -> None:
        with suppress(OSError):
            while data := self._read(source):
                self._flowing.wait()
                self._drop_dead(source)
                if self._bytes_a_second:
                    self._closing.wait(len(data) / self._bytes_a_second)
                if self._last_words and self._last_words in data:
                    self._last_words = None
                    self._dead.add(id(sink))
                    sink.sendall(data)
                    self._closing.wait(_HEARD_AFTER)
                    self.cut()
                sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        if ended.wait() == 0:
            source.close()
            sink.close()

    def _read(self, source: socket.socket) -> bytes:
        while not self._closing.is_set():
            self._flowing.wait()
            self._drop_dead(source)
            readable, _, _ = select.select([source], [], [], _LOOK_EVERY)
            if readable:
                return source.recv(512 if self._bytes_a_second else 65536)
        return b""

    def _drop_dead(self, source: socket.socket) -> None:
        """Hold a lost connection, which ends for neither side, until the proxy ends."""
        while id(source) in self._dead and not self._closing.is_set():
            self._closing.wait(_LOOK_EVERY)
