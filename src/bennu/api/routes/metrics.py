"""`GET /metrics`: what the engine counts, for Prometheus. The first request loads the library."""

import os
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from aiohttp import web

from bennu import __version__
from bennu.api.http.serve import METRICS_TYPE
from bennu.api.shapes.inspect import STORAGE_DRIVER
from bennu.engine.engine import Engine
from bennu.engine.probes import PLACE_S, PROBES_AT_ONCE
from bennu.lifecycle.status import State

DOCKER_STATES: Final = {State.RUNNING: "running", State.RESTARTING: "running", State.PAUSED: "paused"}

if TYPE_CHECKING:
    from prometheus_client.core import Metric


def routes(engine: Engine) -> list[web.RouteDef]:
    async def metrics(request: web.Request) -> web.Response:
        return web.Response(body=render(engine), headers={"Content-Type": METRICS_TYPE})

    return [web.route("GET", "/metrics", metrics)]


def render(engine: Engine) -> bytes:
    """Write the text format. Everything is read at this moment; nothing is kept between two calls."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.registry import Collector

    class EngineCollector(Collector):
        def collect(self) -> "Iterable[Metric]":
            return collect(engine)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(EngineCollector())
    return generate_latest(registry)


def collect(engine: Engine) -> "Iterable[Metric]":
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    containers = engine.list()
    states = GaugeMetricFamily("bennu_containers", "Containers by state.", labels=["state"])
    for state, count in Counter(str(container.record.state) for container in containers).items():
        states.add_metric([state], count)
    yield states
    health = GaugeMetricFamily("bennu_containers_health", "Checked containers, by status.", labels=["status"])
    for status, count in Counter(c.record.health.status for c in containers if c.record.health).items():
        health.add_metric([status], count)
    yield health
    tally, probes = engine.services.tally, engine.services.probe_places
    deaths = CounterMetricFamily("bennu_deaths", "Endings since this daemon started, by cause.", labels=["cause"])
    for cause, count in tally.deaths.items():
        deaths.add_metric([cause], count)
    yield deaths
    yield CounterMetricFamily("bennu_restarts", "Restarts by policy since this start.", value=tally.restarts)
    yield CounterMetricFamily("bennu_probes", "Probes finished since this daemon started.", value=probes.finished)
    yield GaugeMetricFamily("bennu_probes_running", "Probes under way.", value=probes.running)
    slow = f"Of these, probes that took longer than {PLACE_S:g} s and have given their place to others."
    yield GaugeMetricFamily("bennu_probes_slow", slow, value=probes.slow)
    yield GaugeMetricFamily("bennu_probes_waiting", "Probes that wait for a place.", value=probes.waiting)
    yield GaugeMetricFamily("bennu_probes_limit", "Places for probes.", value=PROBES_AT_ONCE)
    yield from collect_as_dockerd(engine)


def collect_as_dockerd(engine: Engine) -> "Iterable[Metric]":
    """Count what dashboards made for dockerd look for, under its names."""
    from prometheus_client.core import GaugeMetricFamily

    counts = Counter(DOCKER_STATES.get(container.record.state, "stopped") for container in engine.list())
    states = GaugeMetricFamily(
        "engine_daemon_container_states_containers", "The count of containers in various states", labels=["state"]
    )
    for state in ("running", "paused", "stopped"):
        states.add_metric([state], counts[state])
    yield states
    page, pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
    cpus, memory = "engine_daemon_engine_cpus_cpus", "engine_daemon_engine_memory_bytes"
    yield GaugeMetricFamily(
        cpus, "The number of cpus that the host system of the engine has", value=os.cpu_count() or 1
    )
    yield GaugeMetricFamily(memory, "The number of bytes of memory that the host has", value=page * pages)
    host = os.uname()
    about = {
        "architecture": host.machine,
        "commit": "",
        "daemon_id": engine.services.engine_id,
        "graphdriver": STORAGE_DRIVER,
        "kernel": host.release,
        "os_type": "linux",
        "version": __version__,
    }
    info = GaugeMetricFamily(
        "engine_daemon_engine_info", "What is known of the engine and its host", labels=list(about)
    )
    info.add_metric(list(about.values()), 1)
    yield info
