"""The checks that look into a database, on a server of their own: each fires when it should, and falls silent again."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest
from django.core import checks
from django.core.management import call_command
from django.db import connections
from django.db.models import Q

from django_walsignals.checks import database
from django_walsignals.checks.messages import CATALOGUE, PREFIX, number_of, report
from django_walsignals.conf import get_stream
from django_walsignals.models import Checkpoint
from django_walsignals.protocol.lsn import LSN
from django_walsignals.provisioning.setup import StreamSetUp, require_server
from django_walsignals.replication import commands
from django_walsignals.replication.catalogue import read_publication
from django_walsignals.replication.connection import ReplicationConnection
from example_project.postgres import PostgresCluster
from tests import server
from tests.test_checks import CASES as STATIC_CASES
from tests.test_checks import MISTAKES
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

ALIAS = "private"
SOUND = {"DATABASE": ALIAS, "MODELS": ["testapp.Note"], "SLOT": "s", "PUBLICATION": "p"}

Found = dict[str, checks.CheckMessage]


def ours(databases: Sequence[str] | None) -> list[checks.CheckMessage]:
    """Run all checks, as ``check --database`` does, and pick what is of this app."""
    return [message for message in checks.run_checks(databases=databases) if str(message.id).startswith(PREFIX)]


class Server:
    """A server whose stream is set up, and what may be wrong there."""

    def __init__(self, cluster: PostgresCluster, settings: Any) -> None:
        self.cluster = cluster
        self.settings = settings
        self.sessions: list[Any] = []
        self.configure()

    @property
    def version(self) -> int:
        return int(self.execute("SHOW server_version_num")[0][0]) // 10000

    def configure(self, **keys: Any) -> None:
        self.settings.WALSIGNALS = {"default": {**SOUND, **keys}}

    def execute(self, *statements: str) -> list[Any]:
        """Run statements, each by itself; return the last one's rows."""
        with connections[ALIAS].cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def found(self, databases: Sequence[str] | None = (ALIAS,)) -> Found:
        """Run the checks; return their messages by number."""
        return {number_of(message): message for message in ours(databases)}

    def wait_for(self, identifier: str) -> checks.CheckMessage:
        return wait_until(lambda: self.found().get(identifier), message=lambda: str(self.found()))

    def wait_for_silence(self, identifier: str) -> None:
        wait_until(lambda: identifier not in self.found(), message=lambda: str(self.found()))

    def restart(self, **configuration: str) -> None:
        connections[ALIAS].close()
        self.cluster.restart(**configuration)

    def set_up(self) -> None:
        """Make all that a stream has: publication, identities, slot and checkpoint."""
        StreamSetUp(get_stream(), require_server(connections[ALIAS]), lambda line: None).apply(())
        self.make_slot()
        with connections[ALIAS].cursor() as cursor:
            publication = read_publication(cursor, "p")
        assert publication
        facts = {"system_identifier": "1", "timeline": 1, "slot": "s", "publication": publication.fingerprint()}
        Checkpoint.objects.using(ALIAS).create(stream="default", lsn=LSN(1), **facts)

    def make_slot(self, *, failover: bool = True) -> None:
        more = f", false, false, {failover}" if self.version >= 17 else ""
        self.execute(f"SELECT pg_create_logical_replication_slot('s', 'pgoutput'{more})")

    def start_consumer(self) -> None:
        """Stream from the slot."""
        connection = ReplicationConnection.open(psycopg.conninfo.conninfo_to_dict(self.replicating))
        connection.start(commands.start_replication("s", LSN(0), ["p"]), "s")
        self.sessions.append(connection)

    def connect_walsender(self) -> None:
        self.sessions.append(psycopg.connect(self.replicating, autocommit=True))

    @property
    def replicating(self) -> str:
        return f"{self.cluster.dsn()} replication=database"

    def close_sessions(self) -> None:
        while self.sessions:
            self.sessions.pop().close()

    def tear_down(self) -> None:
        """Take away all that a test may have left, and its configuration."""
        self.close_sessions()
        connections[ALIAS].close()
        wait_until(lambda: not self.execute("SELECT 1 FROM pg_replication_slots WHERE active"))
        self.execute("ALTER SYSTEM RESET ALL", "SELECT pg_reload_conf()")
        self.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
        self.execute("DROP PUBLICATION IF EXISTS p", "ALTER TABLE testapp_note REPLICA IDENTITY DEFAULT")
        for role in ("plain", "rds_replication"):
            if self.execute(f"SELECT 1 FROM pg_roles WHERE rolname = '{role}'"):
                self.execute(f"DROP OWNED BY {role}", f"DROP ROLE {role}")
        Checkpoint.objects.using(ALIAS).all().delete()
        wait_until(lambda: self.execute("SHOW max_slot_wal_keep_size") == [("1GB",)])


@pytest.fixture(scope="module")
def private_cluster() -> Iterator[PostgresCluster]:
    settings = {"max_slot_wal_keep_size": "1GB", "max_replication_slots": "4", "max_wal_senders": "2"}
    cluster = server.private_cluster(server.temporary_home(), **settings)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.destroy()


@pytest.fixture(scope="module")
def migrated(private_cluster: PostgresCluster, django_db_blocker: Any) -> Iterator[PostgresCluster]:
    """Give Django the server, as a database of its own."""
    entry = {"default": connections.databases["default"], ALIAS: server.database(private_cluster.dsn())}
    connections.databases[ALIAS] = connections.configure_settings(entry)[ALIAS]
    with django_db_blocker.unblock():
        call_command("migrate", database=ALIAS, run_syncdb=True, verbosity=0)
        yield private_cluster
        connections[ALIAS].close()
    del connections[ALIAS]
    del connections.databases[ALIAS]


@pytest.fixture
def bare(migrated: PostgresCluster, settings: Any, no_receivers: None, django_db_blocker: Any) -> Iterator[Server]:
    """Give a server where the stream was never set up."""
    with django_db_blocker.unblock():
        made = Server(migrated, settings)
        yield made
        made.configure()
        made.tear_down()


@pytest.fixture
def sound(bare: Server) -> Server:
    """Give a server where all is well, but that no consumer runs."""
    bare.set_up()
    assert bare.found().keys() == {"I001"}
    return bare


Act = Callable[[Server], None]


def sql(*statements: str) -> Act:
    def act(server: Server) -> None:
        server.execute(*statements)

    return act


def alter_system(name: str, value: str) -> Act:
    return sql(f"ALTER SYSTEM SET {name} = '{value}'", "SELECT pg_reload_conf()")


def both(*acts: Act) -> Act:
    def act(server: Server) -> None:
        for each in acts:
            each(server)

    return act


def as_plain_role(*statements: str) -> Act:
    """Run statements, and go on as a role that may do no more than replicate and read."""
    make = "DO $$ BEGIN CREATE ROLE plain LOGIN REPLICATION; EXCEPTION WHEN duplicate_object THEN END $$"
    grant = "GRANT SELECT ON ALL TABLES IN SCHEMA public TO plain"
    return sql("RESET SESSION AUTHORIZATION", make, grant, *statements, "SET SESSION AUTHORIZATION plain")


def new_slot(server: Server) -> None:
    server.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 's'")
    server.make_slot()


def publication_made_anew(server: Server) -> None:
    server.execute("DROP PUBLICATION IF EXISTS p")
    StreamSetUp(get_stream(), require_server(connections[ALIAS]), lambda line: None).apply(())


def start_as_standby(server: Server) -> None:
    connections[ALIAS].close()
    server.cluster.stop()
    (server.cluster.data / "standby.signal").touch()
    server.cluster.start()


def start_as_primary(server: Server) -> None:
    connections[ALIAS].close()
    server.cluster.stop()
    (server.cluster.data / "standby.signal").unlink()
    server.cluster.start()


WRITE_32_MB = sql(*("SELECT pg_logical_emit_message(false, '', '')", "SELECT pg_switch_wal()") * 2)
DROP_SLOT = sql("SELECT pg_drop_replication_slot('s')")


@dataclass(frozen=True)
class Case:
    """What makes a check fire and what mends it; ``first`` is the first version of PostgreSQL that can have it."""

    identifier: str
    said: str
    hint: str
    harm: Act
    mend: Act
    first: int = 15


CASES = {
    "wal_level is too low": Case(
        "W010",
        "has wal_level = 'replica'",
        "ALTER SYSTEM SET wal_level = 'logical'",
        both(DROP_SLOT, lambda server: server.restart(wal_level="replica")),
        both(lambda server: server.restart(wal_level="logical"), new_slot),
    ),
    "role without REPLICATION": Case(
        "W011",
        "connects as role plain, which may not start replication",
        'ALTER ROLE "plain" REPLICATION',
        both(sql("CREATE ROLE plain LOGIN"), lambda server: server.configure(REPLICATION_OPTIONS={"user": "plain"})),
        sql("ALTER ROLE plain REPLICATION"),
    ),
    "role that a managed service lets replicate": Case(
        "W011",
        "connects as role plain",
        'GRANT rds_replication TO "plain"',
        both(
            sql("CREATE ROLE plain LOGIN", "CREATE ROLE rds_replication"),
            lambda server: server.configure(REPLICATION_OPTIONS={"user": "plain"}),
        ),
        sql("GRANT rds_replication TO plain"),
    ),
    "role that does not exist": Case(
        "W011",
        "connects as role nobody",
        "ALTER ROLE",
        lambda server: server.configure(REPLICATION_OPTIONS={"user": "nobody"}),
        lambda server: server.configure(),
    ),
    "table taken out of the publication": Case(
        "W012",
        "Publication 'p' of stream 'default' is not as its settings want it: ALTER PUBLICATION",
        "Run: manage.py walsetup default",
        sql("ALTER PUBLICATION p DROP TABLE testapp_note"),
        sql("ALTER PUBLICATION p ADD TABLE testapp_note"),
    ),
    "table added to MODELS": Case(
        "W012",
        "is not as its settings want it",
        "Run: manage.py walsetup default",
        lambda server: server.configure(MODELS=["testapp.Note", "auth.Group"]),
        lambda server: server.configure(),
    ),
    "condition for rows": Case(
        "W012",
        "is not as its settings want it",
        "Run: manage.py walsetup default",
        lambda server: server.configure(ROWS={"testapp.Note": Q(text="a")}),
        publication_made_anew,
    ),
    "publication dropped": Case(
        "W012", "CREATE PUBLICATION", "manage.py walsetup default", sql("DROP PUBLICATION p"), publication_made_anew
    ),
    "replica identity": Case(
        "W013",
        "wants old values of tables that do not log them: ALTER TABLE",
        "Run: manage.py walsetup default (or set REPLICA_IDENTITY to 'keep')",
        sql("ALTER TABLE testapp_note REPLICA IDENTITY DEFAULT"),
        lambda server: server.configure(REPLICA_IDENTITY="keep"),
    ),
    "slot dropped": Case("W014", "'s' of stream 'default' is gone", "--accept-gap", DROP_SLOT, new_slot),
    "much log held back": Case(
        "W015",
        "MiB of log, more than 16 MiB",
        "Run manage.py walconsume default",
        both(alter_system("max_slot_wal_keep_size", "32MB"), WRITE_32_MB),
        new_slot,
    ),
    "no bound to the log held back": Case(
        "W016",
        "max_slot_wal_keep_size is -1",
        "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'",
        alter_system("max_slot_wal_keep_size", "-1"),
        alter_system("max_slot_wal_keep_size", "2GB"),
    ),
    "publication of all tables": Case(
        "W017",
        "Publication 'p' of stream 'default' is FOR ALL TABLES",
        'DROP PUBLICATION "p"',
        sql("DROP PUBLICATION p", "CREATE PUBLICATION p FOR ALL TABLES"),
        publication_made_anew,
    ),
    "publication of our own table": Case(
        "W017",
        "holds tables of django_walsignals",
        "manage.py walconsume default --accept-gap",
        sql("ALTER PUBLICATION p ADD TABLE walsignals_checkpoint"),
        sql("ALTER PUBLICATION p DROP TABLE walsignals_checkpoint"),
    ),
    "slot lost": Case(
        "W018",
        "is lost: the server invalidated it (wal_removed)",
        "manage.py walconsume default --accept-gap",
        both(alter_system("max_slot_wal_keep_size", "1MB"), WRITE_32_MB, sql("CHECKPOINT")),
        new_slot,
    ),
    "slot about to be lost": Case(
        "W019",
        "holds back more than max_slot_wal_keep_size",
        "ALTER SYSTEM SET max_slot_wal_keep_size = -1",
        both(alter_system("max_slot_wal_keep_size", "1MB"), WRITE_32_MB),
        new_slot,
    ),
    "standby": Case(
        "W022", "is a standby", "WALSIGNALS['default']['DATABASE'] at the primary", start_as_standby, start_as_primary
    ),
    "no right to write checkpoints": Case(
        "W023",
        "Role plain lacks INSERT, UPDATE on walsignals_checkpoint",
        'GRANT SELECT, INSERT, UPDATE ON "walsignals_checkpoint" TO "plain"',
        as_plain_role(),
        as_plain_role("GRANT INSERT, UPDATE ON walsignals_checkpoint TO plain"),
    ),
    "no right to read checkpoints": Case(
        "W023",
        "Role plain lacks SELECT, INSERT, UPDATE on walsignals_checkpoint",
        "GRANT",
        as_plain_role("REVOKE SELECT ON walsignals_checkpoint FROM plain"),
        as_plain_role("GRANT ALL ON walsignals_checkpoint TO plain"),
    ),
    "no right to write dead letters": Case(
        "W031",
        "Role plain lacks INSERT, UPDATE on walsignals_deadletter",
        'GRANT SELECT, INSERT, UPDATE ON "walsignals_deadletter" TO "plain"',
        as_plain_role(),
        lambda server: server.configure(ON_ERROR="stop"),
    ),
    "table that somebody else owns": Case(
        "W024",
        "Role plain can't set up stream 'default': it does not own public.testapp_note",
        "manage.py walsetup default --sql",
        as_plain_role("ALTER TABLE testapp_note REPLICA IDENTITY DEFAULT"),
        as_plain_role("ALTER TABLE testapp_note REPLICA IDENTITY FULL"),
    ),
    "publication that somebody else owns": Case(
        "W024",
        "does not own publication p",
        "manage.py walsetup default --sql",
        as_plain_role("ALTER PUBLICATION p DROP TABLE testapp_note", "ALTER TABLE testapp_note OWNER TO plain"),
        as_plain_role("ALTER TABLE testapp_note OWNER TO postgres", "ALTER PUBLICATION p ADD TABLE testapp_note"),
    ),
    "database that somebody else owns": Case(
        "W024",
        "has no CREATE on database postgres, and does not own public.testapp_note",
        "manage.py walsetup default --sql",
        as_plain_role("DROP PUBLICATION p"),
        both(sql("RESET SESSION AUTHORIZATION"), publication_made_anew, as_plain_role()),
    ),
    "no slot is left": Case(
        "W025",
        "All 4 replication slots of the server are in use",
        "ALTER SYSTEM SET max_replication_slots = 8",
        both(DROP_SLOT, sql("SELECT pg_create_physical_replication_slot('f' || n) FROM generate_series(1, 4) n")),
        both(sql("SELECT pg_drop_replication_slot('f' || n) FROM generate_series(1, 4) n"), new_slot),
    ),
    "no walsender is left": Case(
        "W025",
        "All 2 walsenders of the server are in use",
        "ALTER SYSTEM SET max_wal_senders = 10",
        both(Server.connect_walsender, Server.connect_walsender),
        Server.close_sessions,
    ),
    "idle slots are lost": Case(
        "W026",
        "idle_replication_slot_timeout is 1d",
        "ALTER SYSTEM SET idle_replication_slot_timeout = 0",
        alter_system("idle_replication_slot_timeout", "1d"),
        alter_system("idle_replication_slot_timeout", "0"),
        first=18,
    ),
    "consumer named as a synchronous standby": Case(
        "W027",
        "which names the consumer of stream 'default' too",
        "{'application_name': …}",
        both(sql("SET synchronous_commit = local"), alter_system("synchronous_standby_names", "FIRST 1 (other, *)")),
        alter_system("synchronous_standby_names", "FIRST 1 (other)"),
    ),
    "slot of another database": Case(
        "W028",
        "belongs to something else (database 'template1', plugin 'pgoutput')",
        "WALSIGNALS['default']['SLOT']",
        both(DROP_SLOT, lambda server: elsewhere(server, "SELECT pg_create_logical_replication_slot('s', 'pgoutput')")),
        new_slot,
    ),
    "slot of physical replication": Case(
        "W028",
        "belongs to something else (physical replication)",
        "WALSIGNALS['default']['SLOT']",
        both(DROP_SLOT, sql("SELECT pg_create_physical_replication_slot('s')")),
        new_slot,
    ),
    "table that is not there": Case(
        "W029",
        "There is no table testapp_note (testapp.Note)",
        "manage.py walsetup default --check",
        sql("ALTER TABLE testapp_note RENAME TO hidden"),
        sql("ALTER TABLE hidden RENAME TO testapp_note"),
    ),
    "no consumer": Case(
        "I001", "No consumer of stream 'default' runs", "manage.py walconsume default", sql(), Server.start_consumer
    ),
    "slot that no standby has": Case(
        "I002",
        "is not kept on standbys",
        "ALTER_REPLICATION_SLOT s (FAILOVER true)",
        both(
            DROP_SLOT,
            lambda server: server.make_slot(failover=False),
            sql("SELECT pg_create_physical_replication_slot('standby')"),
        ),
        new_slot,
        first=17,
    ),
}


def elsewhere(server: Server, statement: str) -> None:
    with psycopg.connect(server.cluster.dsn("template1"), autocommit=True) as session:
        session.execute(statement)


@pytest.mark.parametrize("name", CASES)
def test_a_check_fires_and_falls_silent(name: str, sound: Server) -> None:
    case = CASES[name]
    if sound.version < case.first:
        pytest.skip(f"PostgreSQL {case.first} has it first")
    case.harm(sound)
    message = sound.wait_for(case.identifier)
    assert case.said in message.msg
    assert case.hint in (message.hint or "")
    assert message.level < checks.ERROR, "migrate would refuse to run"
    case.mend(sound)
    sound.wait_for_silence(case.identifier)


def test_an_old_server_is_told_so(sound: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of them is at hand: its facts are another server's, with its version."""
    read = database.read_facts
    monkeypatch.setattr(database, "read_facts", lambda *arguments: replace(read(*arguments), version=140012))
    message = sound.found()["W021"]
    assert message.msg == "The server of DATABASES['private'] is PostgreSQL 14, and 15 or later is needed."
    monkeypatch.undo()
    assert "W021" not in sound.found()


def test_a_server_out_of_reach_is_one_warning(sound: Server) -> None:
    sound.settings.WALSIGNALS = {"default": SOUND, "other": {**SOUND, "SLOT": "s2", "PUBLICATION": "p2"}}
    connections[ALIAS].close()
    sound.cluster.stop()
    try:
        messages = ours([ALIAS])
    finally:
        sound.cluster.start()
    assert [message.id for message in messages] == ["walsignals.W030"]
    assert "manage.py dbshell --database private" in (messages[0].hint or "")
    assert "W030" not in sound.found()


class TestSilence:
    """Whoever has nothing to do with streams must not hear of them."""

    def test_a_stream_that_was_never_set_up_is_let_be(self, bare: Server) -> None:
        alter_system("max_slot_wal_keep_size", "-1")(bare)
        wait_until(lambda: bare.execute("SHOW max_slot_wal_keep_size") == [("-1",)])
        assert bare.found() == {}

    def test_a_slot_of_that_name_in_another_database_does_not_count(self, bare: Server) -> None:
        """A test run finds the development database's, since all databases of a server share the names."""
        elsewhere(bare, "SELECT pg_create_logical_replication_slot('s', 'pgoutput')")
        assert bare.found() == {}

    def test_a_database_without_our_tables_is_let_be(self, sound: Server) -> None:
        sound.execute("ALTER TABLE walsignals_checkpoint RENAME TO hidden")
        try:
            assert sound.found() == {}
        finally:
            sound.execute("ALTER TABLE hidden RENAME TO walsignals_checkpoint")

    def test_a_publication_alone_is_looked_at_for_itself(self, bare: Server) -> None:
        """A migration may have made it, in a test's database too."""
        publication_made_anew(bare)
        assert bare.found() == {}
        bare.execute("ALTER PUBLICATION p DROP TABLE testapp_note")
        assert bare.found().keys() == {"W012"}

    def test_databases_that_nobody_named_are_not_asked(self, sound: Server) -> None:
        sound.execute("DROP PUBLICATION p")
        assert sound.found(databases=None) == sound.found(databases=["default"]) == {}
        assert "W012" in sound.found()

    def test_settings_that_can_not_be_read_are_reported_for_that_alone(self, sound: Server) -> None:
        sound.execute("DROP PUBLICATION p")
        sound.configure(BATCH_SIZE=0)
        assert sound.found().keys() == {"E003"}


def test_migrate_and_check_run_them(sound: Server, capsys: pytest.CaptureFixture[str]) -> None:
    sound.execute("DROP PUBLICATION p")
    for command, options in (("check", {"databases": [ALIAS]}), ("migrate", {"database": ALIAS, "skip_checks": False})):
        call_command(command, **options)
        assert "(walsignals.W012)" in capsys.readouterr().err
    call_command("check")
    assert "walsignals" not in capsys.readouterr().err


class TestCatalogue:
    def test_every_check_is_seen_to_fire_and_to_fall_silent(self) -> None:
        here = {case.identifier for case in CASES.values()} | {"W021", "W030"}
        elsewhere = {identifier.removeprefix("walsignals.") for identifier in MISTAKES}
        elsewhere |= {case.identifier for case in STATIC_CASES.values()} | {"W001", "W006"}
        assert here | elsewhere == CATALOGUE.keys()
        assert not here & elsewhere

    def test_a_check_that_is_not_listed_can_not_be_used(self) -> None:
        with pytest.raises(LookupError, match="W999"):
            report("W999", "", "")

    @pytest.mark.parametrize("number", CATALOGUE)
    def test_an_id_says_its_level(self, number: str) -> None:
        levels = {"E": checks.ERROR, "W": checks.WARNING, "I": checks.INFO}
        assert report(number, "said", "hint").level == levels[number[0]]
