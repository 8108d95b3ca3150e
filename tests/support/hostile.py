"""Requests that no well-meaning client sends, made from our own table of routes and our own shapes.

Every route, every parameter and every field of every body is met with every value of `STRINGS`, `NUMBERS` and
`SHAPES`; all the rest of a request is as it should be, so that the value gets as far into the engine as it can.
"""

import base64
import gzip
import inspect
import io
import json
import random
import re
import sys
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from unittest.mock import MagicMock
from urllib.parse import quote

from aiohttp import web
from msgspec import inspect as shapes

from bennu.api.app import all_routes
from bennu.api.routes import containers, exec, networks, nodes, plugins, secrets, swarm, volumes
from bennu.cluster.api_types import ServiceSpecWire, SwarmSpecWire
from bennu.cluster.swarm_spec import SPEC_DEFAULTS
from bennu.images.registry.logins import Auth
from bennu.model import ContainerConfig
from bennu.network import NetworkRequest

Json = Any
Place = tuple[str | int, ...]

STRINGS: Final = (
    *(
        "",
        " ",
        "a\0b",
        "\0",
        "a\nb",
        "\n",
        "a\r\nb: c",
        "\x1b[31m",
        "\x7f",
        "\t",
        "a b",
        "-rf",
        "--help",
        "%s%n",
        "%00",
    ),
    *("/", ".", "..", "../../../tmp/x", "/../../x", "//", "a/../b", "/proc/self/mem", "/dev/null", "~", "a:b:c", ":"),
    *(
        "=",
        "a=",
        "=b",
        "@",
        "a@sha256:zz",
        "sha256:" + "0" * 64,
        "{{",
        "}}",
        "{{.Node.ID}}",
        "{{.X}}",
        "{{(",
        "${HOME}",
    ),
    *("0", "-1", "1e9", "99999999999999999999", "9" * 5000, "NaN", "Infinity", "0x10", "١٢", "1.5", "null", "true"),
    *("999999999h", "9" * 30 + "s", "50%", "a.b." * 20 + "!", "a" + "." * 40 + "!", "*a" * 40, "user:" + "9" * 5000),
    *("10.10.0.0/8", "0.0.0.0/0", "::/0", "256.1.1.1", "fe80::1%a\nb", "::1", "[", "](", "(((", "*", "\\", "a" * 64),
    *(
        "ü",
        "\u202e",
        "\U0001f600",
        "\ud800",
        "\ufeff",
        "\u2028",
        "x" * 5000,
        "{" * 3000,
        "{{" + "(" * 3000 + ")" * 3000 + "}}",
    ),
)
NUMBERS: Final = (
    *(0, 1, -1, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**53, 2**62, 2**63 - 1, -(2**63), 2**63),
    *(2**64 - 1, 2**64, -(2**64), 10**30, 0.5, -0.0, 1e18, 1e19, 1e30, 1e308),
)
SHAPES: Final[tuple[Json, ...]] = (
    *(None, True, False, [], {}, [None], [[]], [{}], {"": None}, {"a": {}}, {"a\0b": "c"}, {"a\nb": "c\nd"}, {"": ""}),
    *([1], ["a", 1], ["a\0b"], ["a\nb"], [""], [-1, 2**40], {"a": [{"b": None}]}, ["x"] * 2000),
)
NOT_JSON: Final = (
    *(b"", b" ", b"{", b'{"a"', b"[]", b"null", b"1", b'"x"', b"\xff\xfe", b"\0", b"{}{}", b"{} x", b'{"a":NaN}'),
    *(b'{"a":Infinity}', b'{"a":1e999}', b'{"a":-}', b'{"a":01}', b"[" * 100_000, b'{"a":' * 5000 + b"1" + b"}" * 5000),
    *(b'{"\\ud800":1}', b'{"Name":"\\udfff"}', b'{"Image":"\xed\xa0\x80"}', b'{"Name":"\\u0000"}', b"\xef\xbb\xbf{}"),
    *(b'{"Image":"busybox","Image":null}', b'{"image":"busybox","cmd":["true"]}', b"{" + b" " * 100_000 + b"}"),
)
HEADERS: Final = (
    *(
        ("Content-Type", text)
        for text in ("", "text/plain", "application/json; charset=\xff", ";", "a/b/c", "x" * 5000)
    ),
    *(("X-Registry-Auth", text) for text in ("", "=", "\xff", "bnVsbA==", "e30=", "eyJhIjo=", "WzFd", "x" * 7000)),
    *(
        ("X-Registry-Config", text)
        for text in ("", "=", "\xff", "bnVsbA==", "e30=", "eyJhIjo=", "WzFd", "eyJhIjoxfQ==")
    ),
    *(
        ("X-Registry-Auth", base64.urlsafe_b64encode(text).decode())
        for text in (b'{"username":1}', b'{"auth":"\\u0000"}')
    ),
    *(("Content-Encoding", text) for text in ("gzip", "deflate", "br", "zstd", "x", "gzip, gzip")),
    *(("Upgrade", text) for text in ("tcp", "websocket", "h2c", "")),
    *(("Expect", text) for text in ("100-continue", "x")),
    *(("Range", "bytes=5-1"), ("Transfer-Encoding", "gzip"), ("User-Agent", "docker-compose/1."), ("Host", "a b")),
)
TAKES_TAR: Final = frozenset((("POST", "/build"), ("POST", "/images/load"), ("POST", "/images/create"))) | {
    ("PUT", "/containers/{id}/archive"),
}
# Keys that mean something, by the field whose map they are in.
KEYS: Final = {
    "Options": (
        "com.docker.network.driver.mtu",
        "com.docker.network.bridge.name",
        "com.docker.network.bridge.enable_icc",
    ),
    "DriverOpts": ("type", "device", "o", "com.docker.network.endpoint.ifname"),
    "Config": ("max-size", "max-file"),
    "Sysctls": ("net.ipv4.ip_forward", "kernel.domainname"),
    "Labels": (
        *("bennu.health", "bennu.ready", "bennu.on-unhealthy", "bennu.restart.max-delay", "bennu.restart.jitter"),
        *("bennu.restart.budget", "bennu.restart.never-codes", "bennu.rollout.strategy", "bennu.rollout.watch"),
        *("bennu.rollout.steps", "bennu.drain.deadline", "bennu.ready.within", "bennu.health.http"),
    ),
    "ExposedPorts": ("80/tcp", "1-70000/tcp"),
    "PortBindings": ("80/tcp", "0/udp"),
    "EndpointsConfig": ("bridge", "subject"),
    "Seccomp": ("Mode", "Profile"),
    "AppArmor": ("Mode",),
    "Templating": ("Name",),
}
# Values that mean something, by parameter.
SENTENCES: Final = {
    "changes": (
        *(
            "EXPOSE " + "9" * 5000,
            "HEALTHCHECK --retries=" + "9" * 5000 + " CMD x",
            'CMD ["\\u0000"]',
            "ENV a=${b",
            "LABEL",
        ),
        *(
            "HEALTHCHECK --interval=" + "9" * 400 + "h CMD x",
            "VOLUME []",
            "ONBUILD",
            "USER",
            "WORKDIR \n",
            "STOPSIGNAL 1e9",
        ),
    ),
    "ps_args": ("-o pid,cmd --sort=x", "--help", "-C", "aux\nx", "--pid=" + ",1" * 900),
    "dockerfile": ("../Dockerfile", "file", "/etc/passwd", "Dockerfile\n"),
    "buildargs": ('{"a":"\\u0000"}', '{"\\u0000":"a"}', '{"a":null}', "null", "[]", '{"a":1}', "{" * 3000, '{"=":"="}'),
    "labels": ('{"a":"\\u0000"}', '{"\\u0000":"a"}', '{"a":null}', "null", "[]", '{"a":1}', "{" * 3000, '{"=":"="}'),
    "extrahosts": ("a:1.2.3.4\nb", "a:::1", "a=b", ",,,", "a:host-gateway"),
    "detachKeys": ("ctrl-@", "ctrl-", "a,,b", "ctrl-a,ctrl-["),
    "fromImage": ("a" * 300, "localhost:1/x", "localhost:99999/x", "x@sha256:" + "g" * 64),
}
FILTER_KEYS: Final = (
    *("ancestor", "before", "dangling", "desired-state", "driver", "event", "exited", "expose", "health", "id"),
    *("is-task", "label", "label!", "membership", "mode", "name", "names", "network", "node", "node.label", "publish"),
    *("reference", "role", "runtime", "scope", "service", "since", "status", "type", "until", "up-to-date", "volume"),
    *("all", "container", "image", "_up-to-date", "bogus"),
)
SERVICE: Final = {
    "Name": "made",
    "TaskTemplate": {"ContainerSpec": {"Image": "busybox:latest", "Command": ["sleep", "60"], "StopSignal": "KILL"}},
    "Mode": {"Replicated": {"Replicas": 1}},
}


def _tar(**files: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return made.getvalue()


SMALL_TAR: Final = _tar(Dockerfile=b"FROM scratch\nLABEL a=b\n", file=b"x")
NOT_TAR: Final = (
    *(b"", b"x", b"\0" * 1024, b"\xff" * 5000, SMALL_TAR[:700], SMALL_TAR[:512], gzip.compress(SMALL_TAR)[:-20]),
    *(
        b"\x1f\x8b",
        b"BZh9",
        b"\xfd7zXZ\0",
        b"(\xb5/\xfd",
        gzip.compress(b"x" * 9999),
        SMALL_TAR.replace(b"ustar", b"xxxxx"),
    ),
)
# What a route reads from its body, and a body that it accepts.
BODIES: Final[dict[tuple[str, str], tuple[Any, dict[str, Json]]]] = {
    ("POST", "/containers/create"): (containers.ContainerCreateBody, {"Image": "busybox", "Cmd": ["sleep", "60"]}),
    ("POST", "/containers/{id}/update"): (containers.UpdateBody, {}),
    ("POST", "/containers/{id}/exec"): (exec.ExecBody, {"Cmd": ["true"]}),
    ("POST", "/exec/{id}/start"): (exec.StartBody, {"Detach": True}),
    ("POST", "/commit"): (ContainerConfig, {}),
    ("POST", "/auth"): (Auth, {"username": "somebody", "password": "x", "serveraddress": "127.0.0.1:1"}),
    ("POST", "/networks/create"): (NetworkRequest, {"Name": "made"}),
    ("POST", "/networks/{id}/connect"): (networks.ConnectBody, {"Container": "subject"}),
    ("POST", "/networks/{id}/disconnect"): (networks.DisconnectBody, {"Container": "subject"}),
    ("POST", "/volumes/create"): (volumes.VolumeCreateBody, {"Name": "made"}),
    ("POST", "/plugins/pull"): (list[plugins.PluginPrivilege], []),
    ("POST", "/plugins/{name}/set"): (list[str], []),
    ("POST", "/plugins/{name}/upgrade"): (list[plugins.PluginPrivilege], []),
    ("POST", "/swarm/init"): (
        swarm.InitBody,
        {"ListenAddr": "127.0.0.1:2377", "AdvertiseAddr": "127.0.0.1", "Spec": dict(SPEC_DEFAULTS)},
    ),
    ("POST", "/swarm/update"): (SwarmSpecWire, dict(SPEC_DEFAULTS)),
    ("POST", "/nodes/{id}/update"): (nodes.NodeSpecBody, {"Role": "manager", "Availability": "active"}),
    ("POST", "/services/create"): (ServiceSpecWire, SERVICE),
    ("POST", "/services/{id}/update"): (ServiceSpecWire, SERVICE | {"Name": "subject"}),
    ("POST", "/secrets/create"): (secrets.BlobBody, {"Name": "made", "Data": "eA=="}),
    ("POST", "/configs/create"): (secrets.BlobBody, {"Name": "made", "Data": "eA=="}),
    ("POST", "/secrets/{id}/update"): (secrets.BlobBody, {}),
    ("POST", "/configs/{id}/update"): (secrets.BlobBody, {}),
}
# What else a route needs to get anywhere. The one who sends fills in what is in capitals.
QUERIES: Final[dict[tuple[str, str], str]] = {
    ("POST", "/commit"): "container=subject",
    ("POST", "/images/create"): "fromSrc=-",
    ("POST", "/images/{name}/tag"): "repo=made",
    ("POST", "/containers/{id}/attach"): "stream=1&stdout=1",
    ("GET", "/containers/{id}/attach/ws"): "stream=1&stdout=1",
    ("GET", "/containers/{id}/logs"): "stdout=1",
    ("GET", "/services/{id}/logs"): "stdout=1",
    ("GET", "/tasks/{id}/logs"): "stdout=1",
    ("POST", "/containers/{id}/resize"): "h=1&w=1",
    ("POST", "/exec/{id}/resize"): "h=1&w=1",
    ("HEAD", "/containers/{id}/archive"): "path=/etc",
    ("GET", "/containers/{id}/archive"): "path=/etc",
    ("PUT", "/containers/{id}/archive"): "path=/tmp",
    ("POST", "/swarm/leave"): "force=1",
    ("POST", "/build"): "nocache=1",
    **{("POST", f"/{kind}/{{id}}/update"): "version=VERSION" for kind in ("nodes", "services", "secrets", "configs")},
    ("POST", "/swarm/update"): "version=VERSION",
}
READS_BODY: Final = re.compile(r"read_(?:\w+_)?(?:body|spec)\w*\(")
NAMED: Final = re.compile(r'(?:request, |query\.get(?:all)?\()"([\w-]+)"')


@dataclass(frozen=True)
class Route:
    method: str
    path: str
    reads_body: bool
    parameters: tuple[str, ...]  # of the query, as its module reads them

    @property
    def key(self) -> tuple[str, str]:
        return self.method, self.path


@dataclass(frozen=True)
class Hostile:
    """One request; `path` with its query. `what` says for people which place got which value."""

    route: Route
    path: str
    what: str
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)


def read_routes() -> list[Route]:
    """All there are. What the handlers belong to is not asked anything here."""
    cluster = MagicMock()
    cluster.secrets.kind, cluster.configs.kind = "secret", "config"
    return [_route(definition) for definition in all_routes(MagicMock(), cluster)]


def _route(definition: web.RouteDef) -> Route:
    code = "".join(_code_of(definition.handler, set()))
    names = NAMED.findall(code) + (["filters"] if "filters(request" in code else [])
    path = re.sub(r"\{(\w+):[^}]*\}", r"{\1}", definition.path)
    return Route(definition.method, path, bool(READS_BODY.search(code)), tuple(sorted(set(names))))


def _code_of(part: Any, seen: set[Any]) -> Iterator[str]:
    """Of a handler, and of all of the API that it calls."""
    module = sys.modules[part.__module__]
    if part in seen or not module.__name__.startswith("bennu.api"):
        return
    seen.add(part)
    code = inspect.getsource(part)
    yield code
    for name in re.findall(r"\b(\w+)\(", code):
        called = getattr(getattr(part, "__self__", None), name, None) or vars(module).get(name)
        if inspect.isfunction(called) or inspect.ismethod(called) or inspect.isclass(called):
            yield from _code_of(called, seen)


def hostile_requests(seed: int) -> Iterator[Hostile]:
    """Each once, mixed."""
    found = [request for route in read_routes() for request in requests_for(route)]
    random.Random(seed).shuffle(found)
    return iter(found)


def requests_for(route: Route, places: Mapping[Place, shapes.Type] | None = None) -> Iterator[Hostile]:
    """`places`: of the body, and what belongs there; None: as our own shape of it says."""
    yield from _in_path(route)
    yield from _in_query(route)
    yield from _in_headers(route)
    yield from _in_body(route, places)


def _url(route: Route, name: str = "", value: str = "", *, subject: str = "SUBJECT") -> str:
    """The path for a thing of the test's, and what else the route needs of a query, with one more parameter in it."""
    path = re.sub(r"\{\w+\}", lambda _: subject, route.path)
    pairs = [pair for pair in QUERIES.get(route.key, "").split("&") if pair and pair.partition("=")[0] != name]
    pairs += [f"{name}={value}"] if name else []
    return path + ("?" + "&".join(pairs) if pairs else "")


def _in_path(route: Route) -> Iterator[Hostile]:
    if "{" in route.path:
        for value in STRINGS:
            yield Hostile(route, _url(route, subject=_quoted(value)), f"path {value[:40]!r}", _good_body(route))


def _in_query(route: Route) -> Iterator[Hostile]:
    body = _good_body(route)
    for name in route.parameters:
        for value in (*STRINGS, *SENTENCES.get(name, ())):
            given = _quoted(value[:100_000])  # longer ones never reach us: the head would be too long
            yield Hostile(route, _url(route, name, given), f"?{name}={value[:40]!r}", body)
    if "filters" in route.parameters:
        for key in FILTER_KEYS:
            for value in STRINGS:
                given = quote(json.dumps({key: [value[:600]]}))
                yield Hostile(route, _url(route, "filters", given), f"?filters {key}={value[:40]!r}", body)
        for raw in (*NOT_JSON, *(json.dumps({"label": shape}).encode() for shape in SHAPES)):
            yield Hostile(route, _url(route, "filters", quote(raw[:2500])), f"?filters={raw[:40]!r}", body)


def _in_headers(route: Route) -> Iterator[Hostile]:
    for name, value in HEADERS:
        yield Hostile(route, _url(route), f"{name}: {value[:40]!r}", _good_body(route), {name: value})


def _in_body(route: Route, places: Mapping[Place, shapes.Type] | None) -> Iterator[Hostile]:
    if route.key in TAKES_TAR:
        for raw in NOT_TAR:
            yield Hostile(route, _url(route), f"body {raw[:40]!r}", raw)
    shape, good = BODIES.get(route.key, (None, {}))
    if places is None and shape is not None:
        places = {**dict(places_of_value(good)), **dict(places_of_shape(shape))}
    if not places:
        return
    for raw in NOT_JSON:
        yield Hostile(route, _url(route), f"body {raw[:40]!r}", raw)
    for place, kind in places.items():
        for value in values_for(kind):
            raw = json.dumps(put(good, place, value)).encode()
            yield Hostile(route, _url(route), f"body {'.'.join(map(str, place))}={value!r:.40}", raw)


def _good_body(route: Route) -> bytes | None:
    if route.key in TAKES_TAR:
        return SMALL_TAR
    return json.dumps(BODIES[route.key][1]).encode() if route.key in BODIES else None


def _quoted(value: str) -> str:
    return quote(value, safe="", errors="surrogatepass")


# --- places in bodies -------------------------------------------------------------------------------------------


def places_of_shape(shape: Any) -> Iterator[tuple[Place, shapes.Type]]:
    """Where a body of this shape can hold something: fields, entries of lists, values and keys of maps."""
    yield from _places(shapes.type_info(shape), ())


def _places(kind: shapes.Type, at: Place) -> Iterator[tuple[Place, shapes.Type]]:
    inner: list[tuple[str | int, shapes.Type]] = []
    match kind:
        case shapes.UnionType(types=types):
            for one in types:
                yield from _places(one, at)
        case shapes.StructType(fields=fields):
            inner = [(one.encode_name, one.type) for one in fields]
        case shapes.ListType(item_type=item):
            inner = [(0, item)]
        case shapes.DictType(value_type=item):
            inner = [(key, item) for key in ("key", *KEYS.get(str(at[-1]) if at else "", ()))]
    for key, one in inner:
        yield (*at, key), one
        yield from _places(one, (*at, key))


def places_of_value(value: Json, at: Place = ()) -> Iterator[tuple[Place, shapes.Type]]:
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield (*at, key), shapes.AnyType()
        yield from places_of_value(inner, (*at, key))


def values_for(kind: shapes.Type) -> tuple[Json, ...]:
    """A field of one type refuses those of another alike: a few of these are enough."""
    wrong = (None, True, "a", "1", 1, -1.5, 2**64, [], {}, ["a"], {"a": "b"})
    types = kind.types if isinstance(kind, shapes.UnionType) else (kind,)
    found: tuple[Json, ...] = wrong
    for one in types:
        match one:
            case shapes.StrType():
                found += STRINGS
            case shapes.IntType() | shapes.FloatType():
                found += NUMBERS
            case shapes.BoolType() | shapes.NoneType():
                pass
            case shapes.AnyType():
                found += STRINGS + NUMBERS + SHAPES
            case _:
                found += SHAPES
    return found


def put(body: Json, place: Place, value: Json) -> Json:
    """A copy of the body with the value there; what leads there is made."""
    if not place:
        return value
    first, *rest = place
    if isinstance(first, int):
        return [put(body[0] if isinstance(body, list) and body else None, tuple(rest), value)]
    holder = body if isinstance(body, dict) else {}
    if first == "key" and not rest and isinstance(value, str):
        return holder | {value: "x", "key": value}  # a map's keys are as much the client's as its values
    return holder | {first: put(holder.get(first), tuple(rest), value)}
