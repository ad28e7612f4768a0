"""A small HTTP server beside the consumer: ``/metrics``, ``/healthz`` and ``/readyz``.

It runs in a thread of its own, and every request in one more, so that a database that does not answer a scrape keeps
neither the consumer nor a probe. A probe asks no database.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, Final, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import REGISTRY, CollectorRegistry, PlatformCollector, ProcessCollector, make_wsgi_app

from django_walsignals.conf import StreamConfig
from django_walsignals.exceptions import ConfigurationError
from django_walsignals.metrics import Endpoint
from django_walsignals.metrics.collector import StreamCollector
from django_walsignals.metrics.health import Verdict, judge_liveness, judge_readiness
from django_walsignals.metrics.recorder import Recorder
from django_walsignals.metrics.scraping import StatusReader

logger = logging.getLogger(__name__)

#: How long a client may keep a thread with nothing said, in seconds.
CLIENT_TIMEOUT: Final = 10.0

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class MetricsServer:
    """One consumer's metrics and health. A context manager: serves from its start to its end."""

    def __init__(self, config: StreamConfig, endpoint: Endpoint, *, is_temporary: bool) -> None:
        """``is_temporary``: the stream has no checkpoint and no slot of its own to look at."""
        #: To be told what the consumer does.
        self.observer = Recorder()
        self._endpoint = endpoint
        reader = None if is_temporary else StatusReader(config)
        self._collector = StreamCollector(config.alias, self.observer, reader)
        self._registry = REGISTRY if endpoint.with_default_registry else _own_registry()
        self._app = Application(config.alias, self.observer, endpoint.health_timeout, make_wsgi_app(self._registry))
        self._stop_reading, self._stop_writing = os.pipe()
        self._thread = threading.Thread(target=self._run, name="walsignals-metrics", daemon=True)

    @property
    def url(self) -> str:
        """Where the metrics are, as seen from this machine."""
        host = self._endpoint.address
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{self._http.server_port}/metrics"

    def __enter__(self) -> Self:
        self._http = _listen(self._endpoint)
        self._http.set_app(self._app)
        self._registry.register(self._collector)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.write(self._stop_writing, b"x")
        self._thread.join()
        self._registry.unregister(self._collector)
        self._http.server_close()
        os.close(self._stop_reading)
        os.close(self._stop_writing)

    def _run(self) -> None:
        # A signal that this thread took would not end a receiver's sleep or query in the main thread. The threads of
        # the requests inherit the mask.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        poll = select.poll()
        poll.register(self._http, select.POLLIN)
        poll.register(self._stop_reading, select.POLLIN)
        while self._stop_reading not in {descriptor for descriptor, _ in poll.poll()}:
            self._http.handle_request()


class Application:
    """Answers requests, by WSGI."""

    def __init__(self, stream: str, recorder: Recorder, health_timeout: float, metrics: Callable[..., Any]) -> None:
        self._metrics = metrics
        self._judges: dict[str, Callable[[], Verdict]] = {
            "/healthz": lambda: judge_liveness(recorder, stream, health_timeout),
            "/readyz": lambda: judge_readiness(recorder, stream),
        }

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        path = environ["PATH_INFO"]
        if path == "/metrics":
            answer: Iterable[bytes] = self._metrics(environ, start_response)
            return answer
        if path not in self._judges:
            known = ["/metrics", *self._judges]
            return _answer(HTTPStatus.NOT_FOUND, {"error": f"There are {', '.join(known)}."}, start_response)
        verdict = self._judges[path]()
        status = HTTPStatus.OK if verdict.is_good else HTTPStatus.SERVICE_UNAVAILABLE
        return _answer(status, verdict.report, start_response)


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True
    timeout = 0  # handle_request is called when there is one

    def server_bind(self) -> None:
        """Bind, and ask no name server for our own name, as the base class would."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what went wrong with a client, who may just have hung up."""
        logger.debug("A request from %s failed: %r", client_address, sys.exc_info()[1])


class _Handler(WSGIRequestHandler):
    timeout = CLIENT_TIMEOUT

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
        """Log requests where somebody looks for them."""
        logger.debug(format, *args)


def _answer(status: HTTPStatus, body: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    start_response(f"{status.value} {status.phrase}", [("Content-Type", "application/json")])
    return [json.dumps(body).encode() + b"\n"]


def _listen(endpoint: Endpoint) -> _Server:
    """Take the port; raise `ConfigurationError` where that can't be."""
    try:
        family, *_, address = socket.getaddrinfo(
            endpoint.address, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        chosen = type("_Server", (_Server,), {"address_family": family})
        server: _Server = chosen(address, _Handler)
    except OSError as exc:
        where = f"{endpoint.address} port {endpoint.port}"
        raise ConfigurationError(f"Metrics can't be served on {where}: {exc.strerror or exc}.") from exc
    return server


def _own_registry() -> CollectorRegistry:
    """Make a registry with what is of interest of any process: memory, processor, open files."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry
