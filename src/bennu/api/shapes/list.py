"""`GET /containers/json`: chooses containers by filters and writes a line for each (moby `daemon/list.go`)."""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from msgspec import UNSET

from bennu.api.http.name_patterns import name_pattern
from bennu.api.http.query import Filters, parse_integer
from bennu.api.shapes.inspect import (
    endpoint_json,
    exposed_of,
    mount_point,
    networks_of,
    own_facts,
    published_of,
    state_word,
)
from bennu.engine.container import Container
from bennu.engine.engine import Engine
from bennu.engine.links import names_by_link
from bennu.errors import BennuError, InvalidParameter
from bennu.lifecycle.status import State, describe_status
from bennu.model import EndpointSettings

ACCEPTED: Final = frozenset(
    (
        *("ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation"),
        *("label", "name", "network", "publish", "since", "status", "volume"),
    )
)
STATES: Final = ("created", "running", "paused", "restarting", "removing", "exited", "dead")
HEALTHS: Final = ("starting", "healthy", "unhealthy", "none")
Json = dict[str, Any]
Test = Callable[[Container], bool]


def choose(engine: Engine, filters: Filters, *, everything: bool, limit: int) -> list[Container]:
    """Choose containers, newest first. Raises: InvalidParameter, NotFound."""
    filters.check(ACCEPTED)
    if limit > 0 or filters.all("status"):
        everything = True
    tests = list(_tests(engine, filters))
    chosen = [
        container
        for container in engine.list()
        if (everything or container.record.running) and all(test(container) for test in tests)
    ]
    return chosen[:limit] if limit > 0 else chosen


def _tests(engine: Engine, filters: Filters) -> Iterator[Test]:
    if filters.all("id"):
        yield _matches(filters.all("id"), lambda container: (container.id,))
    if filters.all("name"):
        links = names_by_link(container.record for container in engine.list())
        yield _matches(filters.all("name"), lambda container: names_of(container, links))
    if filters.all("label"):
        yield lambda container: filters.labels_match(container.record.config.labels)
    if filters.all("status"):
        yield _status_test(filters.all("status"))
    if filters.all("exited"):
        yield _exited_test(filters.all("exited"))
    if filters.all("health"):
        yield _health_test(filters.all("health"))
    if filters.all("ancestor"):
        images = set(_descendants(engine, filters.all("ancestor")))
        yield lambda container: container.record.image_id in images
    for name in filters.all("before"):
        yield _before_test(engine.find(name).record.created_ns)
    for name in filters.all("since"):
        yield _since_test(engine.find(name).record.created_ns)
    if filters.all("volume"):
        yield _volume_test(set(filters.all("volume")))
    if filters.all("network"):
        yield _network_test(engine, filters.all("network"))
    if filters.all("publish"):
        yield _port_test(filters.all("publish"), _published_ports)
    if filters.all("expose"):
        yield _port_test(filters.all("expose"), _exposed_ports)
    if filters.boolean("is-task") is True:
        yield lambda container: False
    if filters.all("isolation") and not set(filters.all("isolation")) & {"", "default"}:
        yield lambda container: False


def _before_test(instant_ns: int) -> Test:
    return lambda container: container.record.created_ns < instant_ns


def _since_test(instant_ns: int) -> Test:
    return lambda container: container.record.created_ns > instant_ns


def _matches(wanted: Sequence[str], names_of: Callable[[Container], Iterable[str]]) -> Test:
    """Make a test for the exact text or an unanchored regular expression; a malformed one matches nothing."""
    patterns = [pattern for pattern in map(name_pattern, wanted) if pattern is not None]

    def test(container: Container) -> bool:
        names = list(names_of(container))
        return any(name in wanted for name in names) or any(
            pattern.search(name) for pattern in patterns for name in names
        )

    return test


def _status_test(wanted: Sequence[str]) -> Test:
    for status in wanted:
        if status not in STATES:
            raise InvalidParameter(
                f"invalid filter 'status={status}': invalid value for state ({status}): "
                f"must be one of {', '.join(STATES)}"
            )
    return lambda container: state_word(container) in wanted


def _exited_test(wanted: Sequence[str]) -> Test:
    codes = {parse_integer(code) for code in wanted}
    return lambda container: (
        container.record.started_at_ns != 0 and not container.record.running and container.exit_code in codes
    )


def _health_test(wanted: Sequence[str]) -> Test:
    for health in wanted:
        if health not in HEALTHS:
            raise InvalidParameter(f"unrecognized filter value for health: {health}")
    return lambda container: (container.record.health.status if container.record.health else "none") in wanted


def _descendants(engine: Engine, ancestors: Sequence[str]) -> Iterator[str]:
    """Yield the ids of images and of all that were built from them; unknown ones have none."""
    roots: set[str] = set()
    for name in ancestors:
        try:
            roots.add(engine.services.images.find(name).id)
        except BennuError:
            continue
    parents = {image.id: image.parent for image in engine.services.images.list()}
    for image_id in parents:
        link = image_id
        while link and link not in roots:
            link = parents.get(link, "")
        if link:
            yield image_id


def _volume_test(wanted: set[str]) -> Test:
    return lambda container: any(
        wanted & {point.name or point.source, point.destination} for point in container.record.mounts
    )


def _network_test(engine: Engine, wanted: Sequence[str]) -> Test:
    def test(container: Container) -> bool:
        for name, settings in networks_of(engine, container.record).items():
            if name in wanted or any(settings.network_id.startswith(prefix) for prefix in wanted if prefix):
                return True
        return False

    return test


def _published_ports(container: Container) -> set[tuple[str, int]]:
    return {(port.proto, port.host_port) for port in published_of(container.record)}


def _exposed_ports(container: Container) -> set[tuple[str, int]]:
    names = [name.partition("/") for name in exposed_of(container.record)]
    return {(proto or "tcp", int(number)) for number, _, proto in names}


def _port_test(wanted: Sequence[str], ports_of: Callable[[Container], set[tuple[str, int]]]) -> Test:
    ranges = [parse_port_filter(text) for text in wanted]
    return lambda container: any(
        proto == asked.proto and asked.first <= number <= asked.last
        for proto, number in ports_of(container)
        for asked in ranges
    )


@dataclass(frozen=True, slots=True)
class PortFilter:
    proto: str
    first: int
    last: int


def parse_port_filter(text: str) -> PortFilter:
    """Read `80`, `80/udp` or `8000-8010/tcp`. Raises: InvalidParameter."""
    match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/([a-z]+))?", text, re.ASCII)
    if not match:
        raise InvalidParameter(
            f"filter for 'expose' should not contain ':': {text}" if ":" in text else f"invalid port: {text}"
        )
    first = int(match[1])
    return PortFilter(match[3] or "tcp", first, int(match[2] or first))


def names_of(container: Container, links: Mapping[str, list[str]]) -> list[str]:
    """List all names of a container, each with and without its slash."""
    slashed = [f"/{container.record.name}", *links.get(container.id, ())]
    return [*slashed, *(name.removeprefix("/") for name in slashed)]


# --- one element ------------------------------------------------------------------------------------------------


def list_entry(
    engine: Engine, container: Container, api_minor: int, sizes: tuple[int, int] | None, links: Mapping[str, list[str]]
) -> Json:
    """Write a container; `links`: the names that legacy links give to containers, by id (`names_by_link`)."""
    record = container.record
    annotations = record.host_config.annotations
    host: Json = {"NetworkMode": record.host_config.network_mode}
    if api_minor >= 46 and annotations is not UNSET and annotations:
        host["Annotations"] = annotations
    networks = networks_of(engine, record).items()
    entry: Json = {
        "Id": record.id,
        "Names": [f"/{record.name}", *links.get(record.id, ())],
        "Image": shown_image(engine, container),
        "ImageID": record.image_id,
        "Command": shown_command(record.path, record.args),
        "Created": record.created_ns // 10**9,
        "Ports": list(_ports(container)),
    }
    if sizes is not None:
        entry |= {key: size for key, size in zip(("SizeRw", "SizeRootFs"), sizes, strict=True) if size}
    if container.readiness.is_asked:
        entry["Bennu"] = own_facts(container)
    return entry | {
        "Labels": record.config.labels or {},
        "State": state_word(container),
        "Status": status_text(container),
        "HostConfig": host,
        "NetworkSettings": {"Networks": {name: listed_endpoint(settings, api_minor) for name, settings in networks}},
        "Mounts": [mount_point(point) for point in record.mounts],
    }


def listed_endpoint(settings: EndpointSettings, api_minor: int) -> Json:
    """Write an endpoint as a list shows it: without names and options."""
    shown = endpoint_json(settings, api_minor)
    return shown | {name: None for name in ("Links", "Aliases", "DriverOpts", "DNSNames") if name in shown}


def status_text(container: Container) -> str:
    record = container.record
    if container.removing and not record.running:
        return "Removal In Progress"
    return describe_status(
        record.state,
        exit_code=container.exit_code,
        started_at_ns=record.started_at_ns,
        finished_at_ns=record.finished_at_ns,
        health=record.health.status if record.health else "",
        now_ns=time.time_ns(),
    )


def shown_image(engine: Engine, container: Container) -> str:
    """Answer the reference it was created from; the image's id once that names another image or none."""
    reference = container.record.config.image
    try:
        same = engine.services.images.find(reference).id == container.record.image_id
    except BennuError:
        same = False
    return reference if same else container.record.image_id


def shown_command(path: str, args: Sequence[str]) -> str:
    return " ".join([path, *(f"'{arg}'" if " " in arg else arg for arg in args)])


def _ports(container: Container) -> Iterator[Json]:
    """Yield the live ports: first what is published, then what is merely exposed."""
    record = container.record
    if record.state is State.RESTARTING or record.sandbox is None:
        return
    published = published_of(record)
    for port in published:
        public = {"PublicPort": port.host_port} if port.host_port else {}
        yield {"IP": port.host_ip, "PrivatePort": port.container_port, **public, "Type": port.proto}
    covered = {(port.proto, port.container_port) for port in published}
    for name in exposed_of(record):
        number, _, proto = name.partition("/")
        if (proto, int(number)) not in covered:
            yield {"PrivatePort": int(number), "Type": proto}
