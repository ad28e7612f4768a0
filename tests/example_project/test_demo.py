"""The demo: what it counts, what it says, and that a run of it ends well."""

import os
import signal
import sys
from collections import Counter

import pytest

from example_project.demo.feed import Feed, SeenChange
from example_project.demo.ledger import Ledger
from example_project.demo.screen import Screen
from example_project.postgres import PostgresCluster
from tests.conftest import MakeCluster
from tests.processes import ROOT, ManagedProcess

MANAGE = ROOT / "example_project" / "manage.py"
KEY = ("shop.Order", "update")


def seen(number: int = 1, latency: float = 0.01) -> SeenChange:
    return SeenChange(f"0/1/{number}", *KEY[:1], number, KEY[1], {"status": ["new", "paid"]}, latency)


class TestLedger:
    def test_a_repeat_counts_once(self) -> None:
        ledger = Ledger()
        for change in (seen(1), seen(2), seen(1)):
            ledger.add(change)
        assert ledger.received == {KEY: 2}
        assert ledger.repeats == 1

    def test_latencies_are_summed_up(self) -> None:
        ledger = Ledger()
        for number in range(1, 102):
            ledger.add(seen(number, latency=number))
        assert ledger.latency() == pytest.approx((51, 100, 101))

    def test_one_latency_says_nothing(self) -> None:
        ledger = Ledger()
        ledger.add(seen())
        assert ledger.latency() is None

    def test_waiting_ends_at_the_deadline(self) -> None:
        assert not Ledger().wait_for(Counter({KEY: 1}), timeout=0)


class TestFeed:
    def test_all_that_was_written_has_been_read_at_the_end(self) -> None:
        read: list[str] = []
        code = (
            "import json, sys\n"
            "with open(sys.argv[1], 'a') as feed:\n"
            "    for i in range(5000):\n"
            "        change = dict(id=str(i), model='m', pk=i, operation='insert', diff={}, latency=0)\n"
            "        print(json.dumps(change), file=feed)\n"
        )
        with Feed(lambda change: read.append(change.id)) as feed:
            os.set_inheritable(*feed.fds, True)
            assert os.spawnl(os.P_WAIT, sys.executable, sys.executable, "-c", code, feed.path) == 0
        assert read == [str(number) for number in range(5000)]


class TestVerdict:
    @pytest.mark.parametrize(
        ("written", "stock", "code"),
        [
            ({KEY: 1}, (5, 5), 0),
            ({KEY: 1, ("shop.Tag", "insert"): 0}, (5, 5), 0),
            ({KEY: 2}, (5, 5), 1),
            ({}, (5, 5), 1),
            ({KEY: 1, ("shop.Tag", "insert"): 1}, (5, 5), 1),
            ({KEY: 1}, (5, 4), 1),
        ],
    )
    def test_success_means_that_all_sums_agree(
        self, written: dict[tuple[str, str], int], stock: tuple[int, int], code: int
    ) -> None:
        ledger = Ledger()
        ledger.add(seen())
        assert Screen().summary(ledger, written=Counter(written), stock=stock) == code

    def test_an_update_shows_both_values(self, capsys: pytest.CaptureFixture[str]) -> None:
        Screen().change(seen())
        assert capsys.readouterr().out == "~ update shop.Order 1  10 ms  status 'new' -> 'paid'\n"

    def test_of_a_mail_the_subject_is_shown(self, capsys: pytest.CaptureFixture[str]) -> None:
        screen = Screen()
        mail = ["Content-Type: text/plain", "Subject: =?utf-8?q?Bj=C3=B6rn?=", "", "It is good to have you.", "-" * 79]
        for line in ["streaming", *mail, "stopped"]:
            screen.consumer_line(line)
        assert capsys.readouterr().out == "  walconsume: streaming\n  mail: Björn\n  walconsume: stopped\n"


@pytest.mark.integration
class TestRun:
    def demo(self, cluster: PostgresCluster, *arguments: str) -> ManagedProcess:
        url = f"postgres://postgres@127.0.0.1:{cluster.port}/postgres"
        env = {**os.environ, "DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "example_project.config.settings"}
        return ManagedProcess([sys.executable, "-m", "example_project.demo", *arguments], env=env)

    @pytest.mark.slow
    def test_receives_what_is_written_and_so_does_a_second_run(self, make_cluster: MakeCluster) -> None:
        cluster = make_cluster()
        for _ in range(2):
            with self.demo(cluster, "--seconds", "5") as process:
                process.succeed(timeout=120)
            assert "Everything written has been received." in process.stdout.text
            assert "mail: Welcome, " in process.stdout.text

    @pytest.mark.slow
    def test_ctrl_c_ends_it_with_the_summary(self, make_cluster: MakeCluster) -> None:
        with self.demo(make_cluster()) as process:
            process.wait_for_stdout(r"\+ insert shop\.Customer", timeout=120)
            process.signal(signal.SIGINT)
            process.succeed(timeout=120)
        assert "Everything written has been received." in process.stdout.text

    def test_a_server_without_logical_wal_is_refused(self, make_cluster: MakeCluster) -> None:
        with self.demo(make_cluster(wal_level="replica"), "--seconds", "5") as process:
            assert process.wait(timeout=120) == 1
        assert "wal_level" in process.stdout.text


@pytest.mark.integration
def test_the_shop_has_no_model_change_without_a_migration(cluster: PostgresCluster) -> None:
    env = {
        **os.environ,
        "DATABASE_URL": f"postgres://postgres@127.0.0.1:{cluster.port}/postgres",
        "DJANGO_SETTINGS_MODULE": "example_project.config.settings",
    }
    with ManagedProcess([sys.executable, MANAGE, "makemigrations", "--check", "--dry-run", "shop"], env=env) as process:
        process.succeed()
