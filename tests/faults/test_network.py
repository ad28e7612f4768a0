"""The network between the consumer and its server fails: cut, stalled, half-open, slow."""

from collections.abc import Iterator

import pytest
from django.db import connection
from psycopg.conninfo import make_conninfo

from tests import server
from tests.faults.conftest import Notes
from tests.faults.proxy import Proxy
from tests.processes import database_dsn
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

#: The server's patience with the consumer in these tests, and hence the consumer's with the server: in milliseconds.
TIMEOUT = 2000


@pytest.fixture
def proxy(notes: Notes) -> Iterator[Proxy]:
    """Put a proxy between the stream and its server; the ordinary database sessions go past it."""
    port = int(connection.settings_dict["PORT"])
    with Proxy("127.0.0.1", port) as made:
        options = {"host": "127.0.0.1", "port": made.port, "options": f"-c wal_sender_timeout={TIMEOUT}"}
        notes.configure(REPLICATION_OPTIONS={**options, "connect_timeout": 2})
        yield made


def test_cut_connection_is_made_anew(notes: Notes, proxy: Proxy) -> None:
    with notes.consumer() as consumer:
        consumer.wait_for_stdout("streaming")
        notes.write("before")
        notes.wait_for_effects(["before"], consumer)
        proxy.cut()
        notes.write("after")
        notes.wait_for_effects(["before", "after"], consumer)
        assert consumer.terminate() == 0


def test_network_that_refuses_for_a_while_is_waited_out(notes: Notes, proxy: Proxy) -> None:
    with notes.consumer() as consumer:
        consumer.wait_for_stdout("streaming")
        proxy.cut(refuse=True)
        notes.write("meanwhile")
        seen = proxy.accepted
        wait_until(lambda: proxy.accepted >= seen + 3, message=lambda: str(consumer))
        proxy.mend()
        notes.wait_for_effects(["meanwhile"], consumer)
        assert consumer.terminate() == 0
    assert consumer.stderr.text.count("Outage") == 1, "an outage is said once"
    assert consumer.stderr.text.count("Back after") == 1


def test_stalled_network_is_waited_out(notes: Notes, proxy: Proxy) -> None:
    with notes.consumer() as consumer:
        consumer.wait_for_stdout("streaming")
        proxy.stall()
        notes.write("meanwhile")
        wait_until(lambda: not notes.is_streaming(), message="the server did not lose patience")
        proxy.mend()
        notes.wait_for_effects(["meanwhile"], consumer)
        assert consumer.terminate() == 0


def test_stalled_network_is_given_up(notes: Notes, proxy: Proxy) -> None:
    """What a frozen proxy holds is acknowledged by its kernel: TCP's own timers never see that nobody is there."""
    with notes.consumer() as consumer:
        consumer.wait_for_stdout("streaming")
        proxy.stall()
        consumer.wait_for_stderr("Outage", timeout=15)
        proxy.mend()
        notes.write("after")
        notes.wait_for_effects(["after"], consumer)
        assert consumer.terminate() == 0


def test_half_open_connection_is_given_up_and_made_anew(notes: Notes, proxy: Proxy) -> None:
    with notes.consumer() as consumer:
        consumer.wait_for_stdout("streaming")
        notes.write("before")
        notes.wait_for_effects(["before"], consumer)
        proxy.lose()
        notes.write("after")
        notes.wait_for_effects(["before", "after"], consumer, timeout=20)
        assert consumer.terminate() == 0
    assert "Outage" in consumer.stderr.text


def test_idle_connection_that_is_sound_is_not_given_up(notes: Notes, proxy: Proxy) -> None:
    """Silence alone is no outage: a server with nothing to say answers when it is asked."""
    with notes.consumer() as consumer:
        consumer.wait_for_stdout("streaming")
        wait_until_idle_for = 3 * TIMEOUT / 1000
        assert consumer.stderr.wait_for_line("Outage", wait_until_idle_for) is None
        notes.write("after")
        notes.wait_for_effects(["after"], consumer)
        assert consumer.terminate() == 0


def test_slow_network_loses_nothing(notes: Notes, proxy: Proxy) -> None:
    """Some 60 kB at 16 kB a second: longer than the server's patience, of which each status takes its share."""
    with notes.consumer() as consumer:
        consumer.wait_for_stdout("streaming")
        proxy.slow_down(16_000)
        texts = [f"{number} {'x' * 2000}" for number in range(30)]
        notes.write(*texts)
        notes.wait_for_effects(texts, consumer)
        proxy.mend()
        assert consumer.terminate() == 0
    assert "Outage" not in consumer.stderr.text


def test_standby_whose_network_fails_as_it_takes_over_tries_again(notes: Notes, proxy: Proxy) -> None:
    with notes.consumer() as worker:
        worker.wait_for_stdout("streaming")
        with notes.consumer() as standby:
            standby.wait_for_stdout("standing by")
            proxy.cut(refuse=True)
            worker.kill()
            notes.write("a")
            standby.wait_for_stderr("Outage")
            proxy.mend()
            notes.wait_for_effects(["a"], standby)
            assert standby.terminate() == 0


def test_connection_cut_between_commit_and_its_answer_repeats_nothing(notes: Notes) -> None:
    """Nobody told the consumer that its batch was committed: it must look, and not infer it from the error."""
    with Proxy("127.0.0.1", int(connection.settings_dict["PORT"])) as proxy:
        dsn = make_conninfo(database_dsn(), host="127.0.0.1", port=proxy.port)
        with notes.consumer(**{server.DSN: dsn}) as consumer:
            consumer.wait_for_stdout("streaming")
            proxy.cut_after(b"COMMIT")
            notes.write("a")
            consumer.wait_for_stderr("Outage")
            assert notes.effects() == ["a"], "it was not committed: the test showed nothing"
            notes.write("b")
            notes.wait_for_effects(["a", "b"], consumer)
            assert consumer.terminate() == 0


def test_sigterm_while_the_network_is_down_ends_at_once(notes: Notes, proxy: Proxy) -> None:
    with notes.consumer() as consumer:
        consumer.wait_for_stdout("streaming")
        proxy.cut(refuse=True)
        consumer.wait_for_stderr("Outage")
        assert consumer.terminate(timeout=5) == 0


def test_sigterm_while_the_network_is_stalled_ends_within_seconds(notes: Notes, proxy: Proxy) -> None:
    with notes.consumer() as consumer:
        consumer.wait_for_stdout("streaming")
        proxy.stall()
        assert consumer.terminate(timeout=6) == 0
