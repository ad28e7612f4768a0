"""The demo's stages, in order. What each does is in the module beside this one."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from django.core.management import call_command

from example_project.demo import witness
from example_project.demo.consumer import Consumer, ConsumerError
from example_project.demo.feed import Feed
from example_project.demo.ledger import Ledger
from example_project.demo.screen import Screen
from example_project.demo.traffic import actions

PAUSE_SECONDS = 0.6
"""Between two actions of the traffic: slow enough to read along."""

CATCH_UP_SECONDS = 30.0


def run(seconds: float | None) -> int:
    """Run the demo for some seconds, or until Ctrl-C; return the exit code."""
    screen = Screen()
    call_command("migrate", verbosity=0)
    try:
        with stopped_by_signals(seconds) as stop:
            return _run(screen, stop)
    except ConsumerError as exc:
        screen.failure(exc)
        return 1


def _run(screen: Screen, stop: threading.Event) -> int:
    ledger = Ledger()
    _drain(screen, os.devnull)  # what happened before the demo is not the demo's
    before = witness.counts()
    with Feed(screen.change, ledger.add) as feed:
        with Consumer("walconsume", feed=feed.path, pass_fds=feed.fds, on_line=screen.consumer_line) as consumer:
            consumer.wait_for_line("streaming")
            _make_traffic(screen, consumer, stop)
            ledger.wait_for(witness.counts() - before, CATCH_UP_SECONDS)
            consumer.stop()
        _drain(screen, feed.path, feed.fds)  # goes on where the first stopped: whatever was left comes now
    return screen.summary(ledger, written=witness.counts() - before, stock=witness.stock_totals())


def _drain(screen: Screen, feed: str, fds: tuple[int, ...] = ()) -> None:
    arguments = ("walconsume", "--until-lsn", "now")
    with Consumer(*arguments, feed=feed, pass_fds=fds, on_line=screen.consumer_line) as consumer:
        consumer.wait()


def _make_traffic(screen: Screen, consumer: Consumer, stop: threading.Event) -> None:
    for action in actions():
        consumer.check()
        screen.action(action.title)
        action.perform()
        if stop.wait(PAUSE_SECONDS):
            return


@contextmanager
def stopped_by_signals(seconds: float | None) -> Iterator[threading.Event]:
    """Yield an event that a signal or the clock sets; a second signal is not caught."""
    stop = threading.Event()
    caught = (signal.SIGINT, signal.SIGTERM)

    def on_signal(signum: int, frame: FrameType | None) -> None:
        stop.set()
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.signal(number, on_signal) for number in caught}
    clock = threading.Timer(seconds, stop.set) if seconds else None
    if clock:
        clock.daemon = True
        clock.start()
    try:
        yield stop
    finally:
        restore()
        if clock:
            clock.cancel()
