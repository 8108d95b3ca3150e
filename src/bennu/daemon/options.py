"""From flags and configuration file to checked options."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bennu.cluster import HostNode
from bennu.daemon.flags import FLAGS, Kind, Settings, Use, parse_arguments, parse_switch
from bennu.daemon.hosts import DEFAULT_HOST, Tls, check_host, read_tls
from bennu.daemon.network_options import read_network_settings, read_resolving
from bennu.engine.context import Resolving
from bennu.errors import BennuError, InvalidParameter
from bennu.network import NetworkSettings

DEFAULT_CONFIG: Final = Path("/etc/bennu/daemon.json")
MAX_COUNT: Final = 1_000_000
LEVELS: Final = ("debug", "info", "warn", "error", "fatal")
RUNTIMES: Final = ("crun", "runc")
NOTED: Final = {
    "live-restore": "containers always live on while bennud is down",
    "metrics-addr": "metrics are at /metrics on the API socket",
}
KEY_TO_FLAG: Final = {flag.file_key or name: name for name, flag in FLAGS.items()}


@dataclass(frozen=True, slots=True)
class Options:
    data_root: Path
    exec_root: Path
    hosts: tuple[str, ...]
    tls: Tls | None  # for every host that is no unix socket
    pidfile: Path | None
    log_level: str
    group: str
    network: NetworkSettings
    resolving: Resolving
    oci_runtime: str
    default_stop_timeout_s: int
    keep_deaths: int
    shutdown_containers: bool
    node: HostNode
    validate_only: bool
    repair_only: bool
    warnings: tuple[str, ...]  # one line each, for flags without effect


def read_options(arguments: Sequence[str]) -> Options:
    """Read the command line and the configuration file.

    Raises: InvalidParameter, BennuError (unreadable file) with a line for the person who started bennud.
    """
    return check_options(_with_file(parse_arguments(arguments)))


def wants(arguments: Sequence[str], name: str) -> bool:
    """Tell whether a switch such as `--help` is on the command line, before anything else is judged."""
    return bool({f"--{name}", f"-{FLAGS[name].short}" if FLAGS[name].short else ""} & set(arguments))


def _with_file(flags: Settings) -> Settings:
    given = flags.get("config-file")
    path = Path(str(given)) if given else DEFAULT_CONFIG
    if not given and not path.exists():
        return flags
    from_file = parse_file(path)
    both = sorted(set(flags) & set(from_file))
    if both:
        raise InvalidParameter(
            f"unable to configure bennud with file {path}: "
            "the following directives are specified both as a flag and in the configuration file: " + ", ".join(both)
        )
    return flags | from_file


def parse_file(path: Path) -> Settings:
    """Read the configuration file. Raises: BennuError naming the file and what is wrong."""
    wrong = f"unable to configure bennud with file {path}: "
    try:
        content = json.loads(path.read_text() or "{}")
    except OSError as error:
        raise BennuError(f"{wrong}{error.strerror}") from None
    except ValueError as error:
        raise BennuError(f"{wrong}{error}") from None
    if not isinstance(content, dict):
        raise BennuError(f"{wrong}it must hold one JSON object")
    unknown = sorted(set(content) - set(KEY_TO_FLAG))
    if unknown:
        raise BennuError(f"{wrong}the following directives don't match any configuration option: {', '.join(unknown)}")
    return {KEY_TO_FLAG[key]: _file_value(KEY_TO_FLAG[key], value) for key, value in content.items()}


def _file_value(name: str, value: Any) -> str | bool | list[str]:
    match FLAGS[name].kind:
        case Kind.SWITCH:
            return value if isinstance(value, bool) else parse_switch(name, str(value))
        case Kind.LIST:
            if isinstance(value, Mapping):
                return [f"{key}={entry}" for key, given in value.items() for entry in _pairs(given)]
            return [_list_entry(entry) for entry in value] if isinstance(value, list) else [str(value)]
        case Kind.VALUE:
            return str(value)


def _pairs(given: Any) -> list[str]:
    """Write what a key of an object has: options of a driver are an object in a file, too."""
    return [f"{key}={value}" for key, value in given.items()] if isinstance(given, Mapping) else [str(given)]


def _list_entry(entry: Any) -> str:
    """Write a list's entry as on the command line: an address pool is an object in a file."""
    return ",".join(f"{key}={value}" for key, value in entry.items()) if isinstance(entry, Mapping) else str(entry)


def check_options(settings: Settings) -> Options:
    """Check settings and convert them to options. Raises: InvalidParameter."""
    for name in settings:
        if FLAGS[name].use is Use.REFUSED and settings[name] is not False:
            raise InvalidParameter(f"--{name} is not implemented, and ignoring it would not be safe")
    level = "debug" if settings.get("debug") else str(settings.get("log-level", "info"))
    if level not in LEVELS:
        raise InvalidParameter(f"invalid logging level: {level}")
    runtime = str(settings.get("default-runtime", "crun"))
    if runtime not in RUNTIMES:
        raise InvalidParameter(f"unknown or invalid runtime name: {runtime}; use one of {', '.join(RUNTIMES)}")
    timeout = str(settings.get("default-stop-timeout", "10"))
    if not timeout.removeprefix("-").isdecimal():
        raise InvalidParameter(f'invalid argument "{timeout}" for "--default-stop-timeout": not a number of seconds')
    hosts = settings.get("host") or [DEFAULT_HOST]
    tls = read_tls(settings)
    return Options(
        data_root=_root(settings.get("data-root", "/var/lib/bennu")),
        exec_root=_root(settings.get("exec-root", "/run/bennu")),
        hosts=tuple(check_host(host, tls) for host in (hosts if isinstance(hosts, list) else [])),
        tls=tls,
        pidfile=Path(str(settings["pidfile"])) if settings.get("pidfile") else None,
        log_level=level,
        group=str(settings.get("group", "")),
        network=read_network_settings(settings),
        resolving=read_resolving(settings),
        oci_runtime=runtime,
        default_stop_timeout_s=int(timeout),
        keep_deaths=_read_count("keep-deaths", settings.get("keep-deaths", "100")),
        shutdown_containers=bool(settings.get("shutdown-containers")),
        node=HostNode(
            labels=dict(str(entry).partition("=")[::2] for entry in _entries(settings, "label")),
            generic=read_generic(_entries(settings, "node-generic-resource")),
        ),
        validate_only=bool(settings.get("validate")),
        repair_only=bool(settings.get("repair")),
        warnings=tuple(_warnings(settings)),
    )


def _entries(settings: Settings, name: str) -> list[str]:
    found = settings.get(name, [])
    return found if isinstance(found, list) else []


def read_generic(entries: Sequence[str]) -> dict[str, int | frozenset[str]]:
    """Read generic resources: `kind=4` is a count, `kind=name` one piece of several. Raises: InvalidParameter."""
    counts: dict[str, int] = {}
    names: dict[str, set[str]] = {}
    for entry in entries:
        kind, _, value = entry.partition("=")
        if not kind or not value:
            raise InvalidParameter(f"invalid node-generic-resource {entry}: it must look like kind=number or kind=name")
        if value.isdecimal():
            counts[kind] = counts.get(kind, 0) + int(value)
        else:
            names.setdefault(kind, set()).add(value)
    if both := sorted(counts.keys() & names.keys()):
        raise InvalidParameter(f"node-generic-resource {both[0]}: mixed discrete and named resources")
    return counts | {kind: frozenset(pieces) for kind, pieces in names.items()}


def _warnings(settings: Settings) -> Iterator[str]:
    for name in settings:
        if FLAGS[name].use is Use.WITHOUT_EFFECT:
            yield f"--{name} has no effect: {NOTED.get(name, 'bennud has no such setting')}"


def _read_count(name: str, value: object) -> int:
    text = str(value)
    if not text.isdecimal() or not 0 < int(text) <= MAX_COUNT:
        raise InvalidParameter(f'invalid argument "{text}" for "--{name}": not a number from 1 to {MAX_COUNT}')
    return int(text)


def _root(value: object) -> Path:
    path = Path(str(value)).absolute()
    if str(path) == "/":
        raise InvalidParameter("a root cannot be /")
    return path
