"""The options of metrics: what they turn on, what they refuse, and that without them nothing is there."""

import re
import socket
import threading
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from django_walsignals.conf import get_stream
from django_walsignals.metrics import Endpoint, metrics_server
from tests.metrics.scraping import RECEIVERS, consumer
from tests.streams import Stream
from tests.testapp.models import Note

pytestmark = pytest.mark.integration

OURS = {"walsignals-metrics"}

#: Options, and what is said of them.
BAD = [
    (("--metrics-port", "abc"), "'abc' is not a port: a whole number from 0 to 65535"),
    (("--metrics-port", "65536"), "'65536' is not a port"),
    (("--metrics-port=-1",), "'-1' is not a port"),
    (("--metrics-port", "0", "--health-timeout", "0"), "'0' is not a positive number of seconds"),
    (("--metrics-port", "0", "--health-timeout", "soon"), "'soon' is not a positive number of seconds"),
    (("--metrics-port", "0", "--health-timeout", "nan"), "'nan' is not a positive number of seconds"),
    (("--health-timeout", "5"), "need --metrics-port"),
    (("--metrics-address", "::"), "need --metrics-port"),
    (("--metrics-default-registry",), "need --metrics-port"),
]


def run(stream: Stream, *arguments: str, **env: str) -> Any:
    with stream.process(*arguments, "--until-lsn", "now", receivers=RECEIVERS, **env) as process:
        process.wait()
        return process


@pytest.mark.parametrize(
    ("arguments", "is_there"), [((), False), (("--metrics-port", "0"), True)], ids=["without", "with"]
)
def test_nothing_is_imported_or_started_without_the_option(
    stream: Stream, arguments: tuple[str, ...], is_there: bool
) -> None:
    run(stream)
    Note.objects.create(text="threads")
    process = run(stream, *arguments, WATCHED_SAYS="1")
    assert f"prometheus_client: {is_there}\n" in process.stdout.text
    (threads,) = re.findall(r"threads: (.*)", process.stdout.text)
    assert ("walsignals-metrics" in threads) is is_there
    assert ("metrics at" in process.stdout.text) is is_there


@pytest.mark.parametrize(("arguments", "said"), BAD, ids=[" ".join(arguments) for arguments, _ in BAD])
def test_bad_options_are_a_usage_error_in_a_line(stream: Stream, arguments: tuple[str, ...], said: str) -> None:
    process = run(stream, *arguments)
    assert process.returncode == 2
    assert said in process.stderr.text.splitlines()[-1]
    assert "Traceback" not in process.stderr.text


def test_call_command_checks_them_as_well(stream: Stream) -> None:
    with pytest.raises(CommandError, match="'abc' is not a port") as caught:
        call_command("walconsume", metrics_port="abc", until_lsn="now")
    assert caught.value.returncode == 2


def test_a_port_in_use_is_an_error_in_a_line(stream: Stream) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = run(stream, "--metrics-port", str(port))
    assert process.returncode == 1
    line = f"CommandError: Metrics can't be served on 127.0.0.1 port {port}: Address already in use."
    assert process.stderr.text == line + "\n"


def test_an_address_that_is_not_there_is_an_error_in_a_line(stream: Stream) -> None:
    process = run(stream, "--metrics-port", "0", "--metrics-address", "192.0.2.1")
    assert process.returncode == 1
    assert re.fullmatch(r"CommandError: Metrics can't be served on 192\.0\.2\.1 port 0: .+\n", process.stderr.text)


def test_without_prometheus_client_it_says_what_to_install(stream: Stream) -> None:
    process = run(stream, "--metrics-port", "0", WATCHED_WITHOUT_CLIENT="1")
    assert process.returncode == 1
    assert process.stderr.text == (
        'CommandError: Metrics need the package prometheus-client. Run: pip install "django-walsignals[metrics]"\n'
    )


class TestAddress:
    def test_is_this_machine_s_unless_given(self, stream: Stream) -> None:
        with consumer(stream) as target:
            assert target.base.startswith("http://127.0.0.1:")

    @pytest.mark.parametrize(("address", "shown"), [("0.0.0.0", "0.0.0.0"), ("::1", "[::1]")])
    def test_may_be_another(self, stream: Stream, address: str, shown: str) -> None:
        if address == "::1" and not has_ipv6():
            pytest.skip("this machine has no IPv6")
        with consumer(stream, "--metrics-address", address) as target:
            assert target.base.startswith(f"http://{shown}:")
            target.process.wait_for_stdout("streaming")
            assert target.scrape().state() == "streaming"


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


class TestRegistry:
    @pytest.mark.parametrize("is_asked", [False, True])
    def test_the_application_s_metrics_are_served_where_asked(self, stream: Stream, is_asked: bool) -> None:
        arguments = ["--metrics-default-registry"] if is_asked else []
        with consumer(stream, *arguments, WATCHED_COUNTS="1") as target:
            target.process.wait_for_stdout("streaming")
            samples = target.scrape()
            assert ("shop_orders_total" in samples.names) is is_asked
            assert samples.state() == "streaming"
            assert samples.value("process_resident_memory_bytes") > 0

    def test_nothing_of_ours_stays_behind_in_it(self, settings: Any) -> None:
        config = get_stream()
        for _ in range(2):
            with metrics_server(config, Endpoint(0, with_default_registry=True)):
                assert {thread.name for thread in threading.enumerate()} >= OURS
            assert not {thread.name for thread in threading.enumerate()} & OURS
