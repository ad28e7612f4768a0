"""The COPY BOTH connection: what it receives, what it sends last, and how it ends."""

import itertools
import os
import resource
import select
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest

from django_walsignals.exceptions import ConnectionLost, GapError, WalSignalsError
from django_walsignals.protocol.frames import Keepalive, StandbyStatus, XLogData
from django_walsignals.protocol.lsn import LSN
from django_walsignals.protocol.messages import Begin, Commit, Insert, LogicalMessage, Relation
from django_walsignals.replication.commands import IDENTIFY_SYSTEM
from django_walsignals.replication.connection import _END_TIMEOUT, ReplicationConnection
from example_project.postgres import PostgresCluster
from tests.conftest import MakeCluster
from tests.replication.conftest import Open, Source, error_of, next_commit, next_message
from tests.waiting import DEADLINE_SECONDS, wait_until

pytestmark = pytest.mark.integration


def status(lsn: LSN, *, reply: bool = False) -> StandbyStatus:
    return StandbyStatus(lsn, lsn, lsn, 0, reply)


class TestBeforeTheStream:
    def test_the_server_says_who_it_is(self, connect: Open, session: psycopg.Connection) -> None:
        system = connect().identify_system()
        query = """
            SELECT system_identifier::text, timeline_id, current_database(), pg_current_wal_lsn()::text
            FROM pg_control_system(), pg_control_checkpoint()
        """
        found = session.execute(query).fetchone()
        assert found is not None
        assert (system.system_identifier, system.timeline, system.database) == found[:3]
        assert LSN() < system.flushed <= LSN.parse(found[3])

    def test_a_command_gives_its_row(self, connect: Open) -> None:
        row = connect().query(IDENTIFY_SYSTEM, "ask")
        assert set(row) == {"systemid", "timeline", "xlogpos", "dbname"}

    def test_it_may_be_closed_twice(self, connect: Open) -> None:
        connection = connect()
        connection.close()
        connection.close()

    def test_a_closed_connection_is_a_lost_one(self, connect: Open) -> None:
        connection = connect()
        connection.close()
        for use in (connection.fileno, connection.receive, connection.identify_system):
            with pytest.raises(ConnectionLost):
                use()
        with pytest.raises(ConnectionLost):
            connection.send_status(status(LSN()))


class TestStreaming:
    def test_a_transaction_comes_as_its_messages(self, source: Source, streaming: ReplicationConnection) -> None:
        source.insert(1, "é")
        begin, relation, insert, commit = (next_message(streaming) for _ in range(4))
        assert isinstance(begin, Begin) and isinstance(commit, Commit)
        assert isinstance(relation, Relation)
        assert relation.name == source.name
        assert insert == Insert(relation.relation_id, [b"1", "é".encode()])
        assert begin.final_lsn == commit.commit_lsn < commit.end_lsn

    def test_emitted_messages_come_too(self, source: Source, streaming: ReplicationConnection) -> None:
        source.session.execute("SELECT pg_logical_emit_message(false, 'hello', 'world')")
        message = next_message(streaming)
        while not (isinstance(message, LogicalMessage) and message.prefix == "hello"):
            message = next_message(streaming)
        assert message.content == b"world"

    def test_nothing_is_received_when_the_socket_is_dry(self, source: Source, streaming: ReplicationConnection) -> None:
        source.insert(1)
        next_commit(streaming)
        frames = list(itertools.takewhile(bool, iter(streaming.receive, object())))
        assert all(isinstance(frame, Keepalive) for frame in frames)
        assert streaming.receive() is None

    def test_the_socket_becomes_readable_when_something_comes(
        self, source: Source, streaming: ReplicationConnection
    ) -> None:
        source.insert(1)
        next_commit(streaming)
        while streaming.receive() is not None:
            pass
        source.insert(2)
        poll = select.poll()
        poll.register(streaming.fileno(), select.POLLIN)
        assert poll.poll(DEADLINE_SECONDS * 1000)

    def test_the_server_answers_a_status_that_asks_for_it(
        self, source: Source, streaming: ReplicationConnection
    ) -> None:
        source.insert(1)
        done = next_commit(streaming).end_lsn
        streaming.send_status(status(done))
        wait_until(lambda: source.confirmed() >= done)
        while streaming.receive() is not None:
            pass
        streaming.send_status(status(done, reply=True))
        answer = wait_until(streaming.receive, message="the server does not answer")
        assert isinstance(answer, Keepalive)
        assert answer.wal_end >= done

    def test_only_the_flushed_position_moves_the_slot(self, source: Source, streaming: ReplicationConnection) -> None:
        before = source.confirmed()
        source.insert(1)
        done = next_commit(streaming).end_lsn
        streaming.send_status(StandbyStatus(done, before, done, 0, reply_requested=True))
        wait_until(streaming.receive, message="the server does not answer")
        assert source.confirmed() == before
        streaming.send_status(status(done))
        wait_until(lambda: source.confirmed() == done)

    def test_a_row_of_a_megabyte_comes_whole(self, source: Source, streaming: ReplicationConnection) -> None:
        text = "SELECT string_agg(md5(n::text), '') FROM generate_series(1, 40000) n"
        source.session.execute(f"INSERT INTO {source.name} VALUES (1, ({text}))")
        while not isinstance(message := next_message(streaming), Insert):
            pass
        value = message.new[1]
        assert isinstance(value, bytes)
        assert len(value) == 40_000 * 32


class TestEnd:
    def test_a_terminated_walsender_is_a_lost_connection(
        self, source: Source, streaming: ReplicationConnection
    ) -> None:
        source.session.execute("SELECT pg_terminate_backend(%s)", [source.walsender()])
        error = error_of(streaming)
        assert type(error) is ConnectionLost
        assert "terminating connection due to administrator command" in str(error)

    def test_it_stays_lost(self, source: Source, streaming: ReplicationConnection) -> None:
        source.session.execute("SELECT pg_terminate_backend(%s)", [source.walsender()])
        error_of(streaming)
        with pytest.raises(ConnectionLost):
            streaming.receive()

    def test_a_cancelled_stream_is_a_lost_connection(self, source: Source, streaming: ReplicationConnection) -> None:
        source.session.execute("SELECT pg_cancel_backend(%s)", [source.walsender()])
        error = error_of(streaming)
        assert type(error) is ConnectionLost
        assert "canceling statement due to user request" in str(error)

    def test_frames_sent_before_the_end_still_come(self, source: Source, streaming: ReplicationConnection) -> None:
        source.insert(1)
        next_commit(streaming)
        source.insert(2)
        wait_until(lambda: is_sent(source), message="the walsender has not sent the row")
        source.session.execute("SELECT pg_terminate_backend(%s)", [source.walsender()])
        wait_until(lambda: source.walsender() is None)
        assert isinstance(next_message(streaming), Begin)
        next_commit(streaming)
        assert isinstance(error_of(streaming), ConnectionLost)

    def test_finish_lets_the_last_status_arrive(self, source: Source, streaming: ReplicationConnection) -> None:
        source.insert(1)
        done = next_commit(streaming).end_lsn
        assert source.confirmed() < done
        streaming.send_status(status(done))
        streaming.finish()
        assert source.confirmed() == done

    def test_finish_frees_the_slot_for_the_next_consumer(
        self, source: Source, streaming: ReplicationConnection, connect: Open
    ) -> None:
        streaming.finish()
        wait_until(lambda: source.walsender() is None)
        source.start(connect())

    def test_finish_throws_away_what_still_comes_so_that_the_last_status_arrives(
        self, source: Source, streaming: ReplicationConnection
    ) -> None:
        source.insert(0)
        done = next_commit(streaming).end_lsn
        rows = "SELECT n, repeat('x', 1000) FROM generate_series(1, 20000) n"
        source.session.execute(f"INSERT INTO {source.name} {rows}")
        wait_until(lambda: waits_to_send(source), message="the backlog fits the socket")
        streaming.send_status(status(done))
        streaming.finish()
        assert source.confirmed() == done

    def test_finish_does_not_wait_for_its_deadline(self, source: Source, streaming: ReplicationConnection) -> None:
        times: list[float] = []

        def clock() -> float:
            times.append(time.monotonic())
            return times[-1]

        streaming.finish(clock)
        assert times[-1] - times[0] < _END_TIMEOUT

    def test_finish_gives_up_on_a_server_that_does_not_answer(self, streaming: ReplicationConnection) -> None:
        hours = itertools.count(step=3600)
        streaming.finish(clock=lambda: float(next(hours)))
        with pytest.raises(ConnectionLost):
            streaming.fileno()

    def test_finish_of_a_stream_that_has_ended_is_no_error(
        self, source: Source, streaming: ReplicationConnection
    ) -> None:
        source.session.execute("SELECT pg_terminate_backend(%s)", [source.walsender()])
        error_of(streaming)
        streaming.finish()

    def test_finish_before_the_stream_started_is_no_error(self, connect: Open) -> None:
        connection = connect()
        connection.finish()
        with pytest.raises(ConnectionLost):
            connection.fileno()

    def test_finish_works_above_the_limit_of_select(self, source: Source, connect: Open, many_files: None) -> None:
        connection = connect()
        source.start(connection)
        assert connection.fileno() > 1024
        connection.finish()
        wait_until(lambda: source.walsender() is None)


class TestSkippedPublication:
    def test_changes_that_the_server_skips_are_a_gap(self, source: Source, connect: Open) -> None:
        connection = connect()
        source.start(connection, "gone")
        source.insert(1)
        error = error_of(connection)
        assert type(error) is GapError
        assert "gone" in str(error)

    def test_the_gap_stays(self, source: Source, connect: Open) -> None:
        connection = connect()
        source.start(connection, "gone")
        source.insert(1)
        error_of(connection)
        source.insert(2)
        with pytest.raises(WalSignalsError):
            connection.receive()

    @pytest.mark.parametrize(("level", "sqlstate"), [("WARNING", "01000"), ("NOTICE", "55000")])
    def test_other_notices_are_harmless(self, source: Source, connect: Open, level: str, sqlstate: str) -> None:
        connection = connect()
        notify(connection, level, sqlstate)
        source.start(connection)
        source.insert(1)
        next_commit(connection)

    def test_the_warning_that_came_before_a_frame_is_not_overlooked(self, source: Source, connect: Open) -> None:
        connection = connect()
        notify(connection, "WARNING", "55000")
        source.start(connection)
        with pytest.raises(GapError, match=r"The server skips changes: said\."):
            connection.receive()


def notify(connection: ReplicationConnection, level: str, sqlstate: str) -> None:
    connection._connection.execute(f"DO $$ BEGIN RAISE {level} 'said' USING ERRCODE = '{sqlstate}'; END $$")


class TestServerStops:
    def test_a_fast_shutdown_is_a_lost_connection_that_says_so(
        self, private: PostgresCluster, private_stream: ReplicationConnection
    ) -> None:
        stopping = threading.Thread(target=private.stop, args=("fast",))
        stopping.start()
        error = wait_until(lambda: answer(private_stream), message="the stream goes on")
        stopping.join()
        assert type(error) is ConnectionLost
        assert "The server ended the stream, as it does when it shuts down" in str(error)

    def test_an_immediate_shutdown_is_a_lost_connection(
        self, private: PostgresCluster, private_stream: ReplicationConnection
    ) -> None:
        private.stop("immediate")
        assert type(error_of(private_stream)) is ConnectionLost


@pytest.fixture
def private(make_cluster: MakeCluster) -> PostgresCluster:
    return make_cluster()


@pytest.fixture
def private_stream(private: PostgresCluster, connect: Open) -> ReplicationConnection:
    with psycopg.connect(private.dsn(), autocommit=True) as session:
        private_source = Source(session, private.dsn())
    connection = connect(private.dsn())
    private_source.start(connection)
    return connection


@pytest.fixture
def many_files() -> Iterator[None]:
    """Use up the file descriptors that select() can watch."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    yield
    for file in files:
        os.close(file)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def answer(connection: ReplicationConnection) -> WalSignalsError | None:
    """Be a consumer that has done all that it was sent; return the error that ends the stream."""
    try:
        frame = connection.receive()
        if isinstance(frame, Keepalive):
            connection.send_status(status(frame.wal_end))
    except WalSignalsError as exc:
        return exc
    assert not isinstance(frame, XLogData)
    return None


def waits_to_send(source: Source) -> bool:
    """Say whether the walsender waits for us to read."""
    query = "SELECT wait_event = 'WalSenderWriteData' FROM pg_stat_activity WHERE pid = %s"
    row = source.session.execute(query, [source.walsender()]).fetchone()
    return bool(row and row[0])


def is_sent(source: Source) -> bool:
    """Say whether the walsender has sent all that there is."""
    query = "SELECT sent_lsn >= pg_current_wal_lsn() FROM pg_stat_replication WHERE pid = %s"
    row = source.session.execute(query, [source.walsender()]).fetchone()
    return bool(row and row[0])
