"""Metrics for Prometheus and health for Kubernetes, of one consumer and over HTTP: ``walconsume --metrics-port``.

`recorder` counts in the consumer's own thread, `collector` turns that and the server's view into metric families when
somebody asks, `health` judges, `server` answers. The only part that imports prometheus_client, and nobody imports this
part unless the option is given.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from django_walsignals.conf import StreamConfig
from django_walsignals.exceptions import ConfigurationError

if TYPE_CHECKING:
    from django_walsignals.metrics.server import MetricsServer

#: This machine only: metrics name models and receivers, and nothing here asks who is asking. In a container it is
#: ``0.0.0.0``, or ``::``.
DEFAULT_ADDRESS: Final = "127.0.0.1"

#: How long a call of a receiver, or a statement of the consumer's own, may take before the process counts as hung, in
#: seconds. Generous: who is restarted on account of it takes the same batch again, and just as long.
DEFAULT_HEALTH_TIMEOUT: Final = 300.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to serve metrics and health, and how. Port 0 is any free one."""

    port: int
    address: str = DEFAULT_ADDRESS
    health_timeout: float = DEFAULT_HEALTH_TIMEOUT
    #: Serve what prometheus_client's default registry has, too: the application's own metrics.
    with_default_registry: bool = False


def metrics_server(
    config: StreamConfig, endpoint: Endpoint, *, is_temporary: bool = False
) -> AbstractContextManager[MetricsServer]:
    """Make the server of one consumer's metrics, to be entered; raise `ConfigurationError` where there can't be one."""
    try:
        from django_walsignals.metrics.server import MetricsServer
    except ModuleNotFoundError as exc:
        if exc.name != "prometheus_client":
            raise
        raise ConfigurationError(
            'Metrics need the package prometheus-client. Run: pip install "django-walsignals[metrics]"'
        ) from exc
    return MetricsServer(config, endpoint, is_temporary=is_temporary)
