"""Whether a container is healthy: what to run, when to run it next, and what a result means. Pure.

Docker's rules. A run begins as `starting`; the first probe comes one interval after the start, each further one an
interval after the end of the last. A failure within the start period does not count while the container has never
been healthy; `retries` failures in a row make it unhealthy, one success makes it healthy.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from bennu.errors import InvalidParameter

SECOND_NS: Final = 10**9
DEFAULT_INTERVAL_NS: Final = 30 * SECOND_NS
DEFAULT_TIMEOUT_NS: Final = 30 * SECOND_NS
DEFAULT_START_INTERVAL_NS: Final = 5 * SECOND_NS
DEFAULT_RETRIES: Final = 3
KEPT_RESULTS: Final = 5
OUTPUT_BYTES: Final = 4096
NUMBER: Final = re.compile(r"[0-9]{1,5}", re.ASCII)
URL: Final = re.compile(
    r"(?:http://)?(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]*)(?::(?P<port>[0-9]{1,5}))?(?P<path>[/?][!-~]*)?"
)
METHOD: Final = re.compile(r"[A-Z]{1,20}")
HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
HEADER_VALUE: Final = re.compile(r"[\t -~]*")
TIMED_OUT: Final = -1  # exit code of a probe that was not done in time, or could not be run


class HealthStatus(StrEnum):
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class OnUnhealthy(StrEnum):
    """What is done about an unhealthy plain container; Docker does nothing."""

    NONE = "none"
    RESTART = "restart"
    STOP = "stop"
    KILL = "kill"


@dataclass(frozen=True, slots=True)
class CommandProbe:
    """Run in the container; exit code 0 is a success."""

    args: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HttpProbe:
    """Asked from the daemon, inside the container's network namespace."""

    host: str
    port: int
    path: str
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    expected: tuple[tuple[int, int], ...] = ((200, 399),)  # ranges of status codes


@dataclass(frozen=True, slots=True)
class TcpProbe:
    """A connection that is accepted is a success."""

    host: str
    port: int


Probe = CommandProbe | HttpProbe | TcpProbe


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A health check in force. Durations in ns; all defaults are filled in."""

    probe: Probe
    interval_ns: int = DEFAULT_INTERVAL_NS
    timeout_ns: int = DEFAULT_TIMEOUT_NS
    start_period_ns: int = 0
    start_interval_ns: int = DEFAULT_START_INTERVAL_NS
    retries: int = DEFAULT_RETRIES


@dataclass(frozen=True, slots=True)
class HealthState:
    status: HealthStatus = HealthStatus.STARTING
    failing_streak: int = 0


@dataclass(frozen=True, slots=True)
class Judged:
    """The state after a result; `changed` says whether the status did, which is when Docker sends an event."""

    state: HealthState
    changed: bool
    reason: str


def judge(state: HealthState, check: Check, *, exit_code: int, started_after_ns: int) -> Judged:
    """What a probe's result means.

    Args:
        started_after_ns: how long after the container's start the probe was started.
    """
    if exit_code == 0:
        healthy = HealthState(HealthStatus.HEALTHY)
        return Judged(healthy, state.status is not HealthStatus.HEALTHY, "the probe succeeded")
    if state.status is HealthStatus.STARTING and started_after_ns < check.start_period_ns:
        return Judged(state, False, "the probe failed, which does not count within the start period")
    streak = state.failing_streak + 1
    if streak < check.retries:
        return Judged(HealthState(state.status, streak), False, f"failure {streak} of {check.retries} in a row")
    changed = state.status is not HealthStatus.UNHEALTHY
    return Judged(HealthState(HealthStatus.UNHEALTHY, streak), changed, f"{streak} probes in a row failed")


def next_wait_ns(state: HealthState, check: Check, *, running_for_ns: int) -> int:
    """How long after the end of the last probe (or the start) the next one begins."""
    if state.status is HealthStatus.STARTING and running_for_ns < check.start_period_ns:
        return check.start_interval_ns
    return check.interval_ns


def plan_check(
    test: Sequence[str] | None,
    *,
    interval_ns: int = 0,
    timeout_ns: int = 0,
    start_period_ns: int = 0,
    start_interval_ns: int = 0,
    retries: int = 0,
    shell: Sequence[str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Check | None:
    """The check in force, from `Config.Healthcheck` (0 = default) and Bennu's labels; None: there is none.

    `bennu.health.http` and `bennu.health.tcp` replace the command. Raises: InvalidParameter for a malformed label.
    """
    probe = probe_from_labels("bennu.health", labels or {}) or command_probe(test, shell)
    if probe is None:
        return None
    return Check(
        probe=probe,
        interval_ns=interval_ns or DEFAULT_INTERVAL_NS,
        timeout_ns=timeout_ns or DEFAULT_TIMEOUT_NS,
        start_period_ns=start_period_ns,
        start_interval_ns=start_interval_ns or DEFAULT_START_INTERVAL_NS,
        retries=retries or DEFAULT_RETRIES,
    )


def command_probe(test: Sequence[str] | None, shell: Sequence[str] | None = None) -> CommandProbe | None:
    """`["CMD", …]` or `["CMD-SHELL", script]`; None for NONE, nothing, and words Docker does not know."""
    match list(test or ()):
        case ["CMD", first, *rest]:
            return CommandProbe((first, *rest))
        case ["CMD-SHELL", *script]:
            return CommandProbe((*(shell or ("/bin/sh", "-c")), *script))
    return None


def probe_from_labels(prefix: str, labels: Mapping[str, str]) -> HttpProbe | TcpProbe | CommandProbe | None:
    """The probe that labels `PREFIX.http`, `PREFIX.tcp` or `PREFIX.cmd` describe. Raises: InvalidParameter."""
    if url := labels.get(f"{prefix}.http"):
        return _http_probe(prefix, url, labels)
    if address := labels.get(f"{prefix}.tcp"):
        host, port = _host_port(f"{prefix}.tcp", address)
        return TcpProbe(host, port)
    if (script := labels.get(f"{prefix}.cmd")) and prefix != "bennu.health":
        return CommandProbe(("/bin/sh", "-c", script))
    return None


def _http_probe(prefix: str, url: str, labels: Mapping[str, str]) -> HttpProbe:
    label = f"{prefix}.http"
    parts = URL.fullmatch(url)
    if parts is None:
        raise InvalidParameter(f"label {label}: {url!r} is not an http:// address")
    host, port = _host_port(label, f"{parts['host']}:{parts['port'] or 80}")
    path = parts["path"] or "/"
    headers = tuple(
        (name.removeprefix(f"{label}.header."), value)
        for name, value in sorted(labels.items())
        if name.startswith(f"{label}.header.")
    )
    method = labels.get(f"{label}.method", "GET").upper()
    expected = _status_ranges(f"{label}.status", labels.get(f"{label}.status", "200-399"))
    if not METHOD.fullmatch(method):
        raise InvalidParameter(f"label {label}.method: {method!r} is not a method")
    for name, value in headers:
        if not HEADER_NAME.fullmatch(name) or not HEADER_VALUE.fullmatch(value):
            raise InvalidParameter(f"label {label}.header.{name}: not a header that can be sent")
    return HttpProbe(host, port, path if path.startswith("/") else f"/{path}", method, headers, expected)


def _host_port(label: str, address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not NUMBER.fullmatch(port) or not 0 < int(port) < 65536:
        raise InvalidParameter(f"label {label}: {address!r} names no port")
    return host.strip("[]") or "127.0.0.1", int(port)


def _status_ranges(label: str, text: str) -> tuple[tuple[int, int], ...]:
    ranges = []
    for word in text.split(","):
        first, _, last = word.strip().partition("-")
        if not NUMBER.fullmatch(first) or not NUMBER.fullmatch(last or first):
            raise InvalidParameter(f"label {label}: {text!r} is not a list of status codes such as 200-299,304")
        ranges.append((int(first), int(last or first)))
    return tuple(ranges)


def on_unhealthy(labels: Mapping[str, str]) -> OnUnhealthy:
    """What `bennu.on-unhealthy` asks for. Raises: InvalidParameter."""
    text = labels.get("bennu.on-unhealthy", "none")
    try:
        return OnUnhealthy(text)
    except ValueError:
        raise InvalidParameter(f"label bennu.on-unhealthy: {text!r} is not one of none, restart, stop, kill") from None


def cut_output(output: bytes) -> str:
    """What is kept of a probe's output: 4096 bytes, and a mark when there was more."""
    text = output[:OUTPUT_BYTES].decode(errors="replace")
    return text + "..." if len(output) > OUTPUT_BYTES else text


def timeout_text(timeout_ns: int, output: str) -> str:
    """Docker's words for a probe that was not done in time."""
    text = f"Health check exceeded timeout ({go_duration(timeout_ns)})"
    return f"{text}: {output}" if output else text


def go_duration(ns: int) -> str:
    """As Go prints a duration: `1s`, `500ms`, `1m30s`."""
    if ns < SECOND_NS:
        for unit, word in ((10**6, "ms"), (10**3, "µs")):
            if ns >= unit:
                return f"{ns / unit:.6f}".rstrip("0").rstrip(".") + word
        return f"{ns}ns"
    minutes, rest = divmod(ns, 60 * SECOND_NS)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{rest / SECOND_NS:.9f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds
