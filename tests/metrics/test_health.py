"""Alive and ready, as Kubernetes asks."""

import psycopg
import pytest
from django.db import connection

from django_walsignals.metrics.health import judge_liveness, judge_readiness
from django_walsignals.metrics.recorder import Phase, Recorder
from tests.metrics.scraping import RECEIVERS, consumer
from tests.metrics.test_scrapes import release
from tests.processes import database_dsn
from tests.streams import Stream
from tests.testapp.models import Note
from tests.waiting import wait_until

TIMEOUT = 10.0


class Watch:
    """A recorder whose clock stands still, and what is said of it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.recorder = Recorder(clock=lambda: self.now)

    @property
    def is_alive(self) -> bool:
        return judge_liveness(self.recorder, "default", TIMEOUT).is_good

    @property
    def is_ready(self) -> bool:
        return judge_readiness(self.recorder, "default").is_good


@pytest.fixture
def watch() -> Watch:
    return Watch()


class TestAlive:
    def test_waiting_may_last_for_ever(self, watch: Watch) -> None:
        watch.recorder.session_started()
        watch.recorder.working()
        watch.recorder.waiting()
        watch.now += 1e6
        assert watch.is_alive

    def test_work_may_not(self, watch: Watch) -> None:
        watch.recorder.session_started()
        watch.recorder.working()
        watch.now += TIMEOUT
        assert watch.is_alive
        watch.now += 0.1
        assert not watch.is_alive
        assert judge_liveness(watch.recorder, "default", TIMEOUT).report == {
            "status": "hung",
            "stream": "default",
            "state": "streaming",
            "seconds_without_progress": 10.1,
        }

    def test_every_call_of_a_receiver_is_progress(self, watch: Watch) -> None:
        def take_long(sent: object) -> None:
            watch.now += TIMEOUT

        send = watch.recorder.watched(take_long, "shop.slow")
        watch.recorder.session_started()
        watch.recorder.working()
        for _ in range(3):
            send(None)
            assert watch.is_alive

    def test_a_call_that_raises_is_progress_too(self, watch: Watch) -> None:
        def fail(sent: object) -> None:
            watch.now += TIMEOUT
            raise LookupError

        watch.recorder.session_started()
        watch.recorder.working()
        for _ in range(3):
            with pytest.raises(LookupError):
                watch.recorder.watched(fail, "shop.failing")(None)
            assert watch.is_alive

    def test_a_pause_before_the_next_attempt_is_no_hang(self, watch: Watch) -> None:
        watch.recorder.session_started()
        watch.recorder.working()
        watch.recorder.pausing(60)
        watch.now += 60
        assert watch.is_alive
        watch.now += TIMEOUT + 0.1
        assert not watch.is_alive

    @pytest.mark.parametrize("name", ["standing_by", "outage"])
    def test_what_a_restart_can_not_mend_is_no_reason_for_one(self, watch: Watch, name: str) -> None:
        watch.recorder.session_started()
        watch.recorder.working()
        getattr(watch.recorder, name)()
        watch.now += 1e6
        assert watch.is_alive

    def test_a_new_session_starts_afresh(self, watch: Watch) -> None:
        watch.recorder.session_started()
        watch.recorder.working()
        watch.recorder.outage()
        watch.now += 1e6
        watch.recorder.session_started()
        assert watch.is_alive


class TestReady:
    def test_from_the_stream_s_start_on(self, watch: Watch) -> None:
        assert not watch.is_ready
        watch.recorder.session_started()
        assert watch.is_ready

    def test_a_standby_is_ready(self, watch: Watch) -> None:
        watch.recorder.standing_by()
        assert watch.is_ready

    def test_not_in_an_outage(self, watch: Watch) -> None:
        watch.recorder.session_started()
        watch.recorder.outage()
        assert not watch.is_ready
        assert watch.recorder.phase is Phase.RECONNECTING


@pytest.mark.integration
class TestProbes:
    def test_a_receiver_that_hangs_is_seen_and_its_end_too(self, stream: Stream, pipe: str) -> None:
        with consumer(stream, "--health-timeout", "0.5", WATCHED_PIPE=pipe) as target:
            target.process.wait_for_stdout("streaming")
            assert target.probe("/healthz") == (
                200,
                {"status": "ok", "stream": "default", "state": "streaming", "seconds_without_progress": 0.0},
            )
            Note.objects.create(text="hang")
            wait_until(lambda: target.probe("/healthz")[0] == 503)
            status, report = target.probe("/healthz")
            assert (status, report["status"]) == (503, "hung")
            assert report["seconds_without_progress"] > 0.5
            assert target.probe("/readyz")[0] == 200
            release(pipe)
            wait_until(lambda: target.probe("/healthz")[0] == 200)

    def test_an_idle_consumer_is_alive(self, stream: Stream) -> None:
        with consumer(stream, "--health-timeout", "0.001") as target:
            target.process.wait_for_stdout("streaming")
            wait_until(lambda: target.probe("/healthz")[0] == 200)
            answers = {target.probe("/healthz")[0] for _ in range(50)}
            assert answers == {200}

    def test_the_wait_before_the_next_attempt_is_no_hang(self, stream: Stream) -> None:
        """The last wait is of 1.6 seconds at least."""
        stream.configure(MAX_ATTEMPTS=7)
        with consumer(stream, "--health-timeout", "1") as target:
            target.process.wait_for_stdout("streaming")
            Note.objects.create(text="bad")
            answers = set()

            def is_given_up() -> bool:
                answers.add(target.probe("/healthz")[0])
                return any(
                    target.scrape().values("walsignals_dead_letters_total", receiver=f"{RECEIVERS}.note_changed")
                )

            wait_until(is_given_up, timeout=30)
            assert answers == {200}

    def test_other_pages_are_not_there(self, stream: Stream) -> None:
        with consumer(stream) as target:
            status, text = target.get("/")
            assert status == 404
            assert "/healthz" in text

    def test_readiness_is_asked_before_the_stream_has_started(self, stream: Stream) -> None:
        """A slot is not made while a transaction that writes is open."""
        with psycopg.connect(database_dsn()) as session:
            session.execute("CREATE TABLE held_open ()")
            with consumer(stream, "--health-timeout", "0.001") as target:
                wait_until(lambda: blocked() > 0)
                status, report = target.probe("/readyz")
                assert (status, report["status"], report["state"]) == (503, "not ready", "starting")
                assert target.probe("/healthz")[0] == 200
                session.rollback()
                wait_until(lambda: target.probe("/readyz")[0] == 200)


def blocked() -> int:
    """Count the sessions that make a slot and wait for a transaction."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender' AND wait_event_type = 'Lock'"
        )
        return cursor.fetchone()[0]
