"""From flags and configuration file to checked options."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bennu.cluster import HostNode
from bennu.daemon.config_file import MAY_BE_IN_BOTH, parse_file
from bennu.daemon.container_options import read_container_defaults, seccomp_name
from bennu.daemon.flags import FLAGS, Settings, Use, parse_arguments
from bennu.daemon.hosts import DEFAULT_HOST, Tls, check_host, read_tls
from bennu.daemon.network_options import read_network_settings, read_resolving
from bennu.daemon.proxies import PROXIES, read_proxies
from bennu.engine.context import Resolving
from bennu.engine.settings import CDI_FOLDERS, SHUTDOWN_S, EngineSettings
from bennu.errors import InvalidParameter
from bennu.go.bool import parse_bool
from bennu.images.registries import ATTEMPTS, DOWNLOADS, UPLOADS, parse_registries
from bennu.network import NetworkSettings

DEFAULT_CONFIG: Final = Path("/etc/bennu/daemon.json")
MAX_COUNT: Final = 1_000_000
LEVELS: Final = ("trace", "debug", "info", "warn", "error", "fatal", "panic")
FORMATS: Final = ("text", "json")
RUNTIMES: Final = ("crun", "runc")
NO_CONTAINERD: Final = "there is no containerd: conmon holds the containers"
NOTED: Final = {
    "add-runtime": "containers run with crun or runc, and one that asks for another runtime is refused",
    "allow-nondistributable-artifacts": "nondistributable artifacts are always pushed",
    "containerd": NO_CONTAINERD,
    "containerd-namespace": NO_CONTAINERD,
    "containerd-plugins-namespace": NO_CONTAINERD,
    "cri-containerd": NO_CONTAINERD,
    "live-restore": "containers always live on while bennud is down",
}


@dataclass(frozen=True, slots=True)
class Options:
    data_root: Path
    exec_root: Path
    hosts: tuple[str, ...]
    tls: Tls | None  # for every host that is no unix socket
    pidfile: Path | None
    log_level: str
    log_format: str
    group: str
    network: NetworkSettings
    resolving: Resolving
    oci_runtime: str
    default_stop_timeout_s: int
    keep_deaths: int
    shutdown_containers: bool
    node: HostNode
    metrics: tuple[str, int] | None  # where to answer for them beside the API
    engine: EngineSettings
    proxies: Mapping[str, str]  # of the options, with passwords
    features: Mapping[str, bool]
    settings: Settings  # all that this was made of
    flags: Settings  # what of it was on the command line
    config_file: Path | None  # None: nobody named one
    validate_only: bool
    repair_only: bool
    warnings: tuple[str, ...]  # one line each, for flags without effect


def read_options(arguments: Sequence[str]) -> Options:
    """Read the command line and the configuration file.

    Raises: InvalidParameter, BennuError (unreadable file) with a line for the person who started bennud.
    """
    flags = parse_arguments(arguments)
    return check_options(_with_file(flags), flags)


def wants(arguments: Sequence[str], name: str) -> bool:
    """Tell whether a switch such as `--help` is on the command line, before anything else is judged."""
    return bool({f"--{name}", f"-{FLAGS[name].short}" if FLAGS[name].short else ""} & set(arguments))


def _with_file(flags: Settings) -> Settings:
    given = flags.get("config-file")
    path = Path(str(given)) if given else DEFAULT_CONFIG
    if not given and not path.exists():
        return flags
    return _joined(flags, parse_file(path, flags))


def _joined(flags: Settings, from_file: Settings) -> Settings:
    """Join both; runtimes may be named in either."""
    joined = flags | from_file
    for name in MAY_BE_IN_BOTH & flags.keys() & from_file.keys():
        joined[name] = [*_entries(from_file, name), *_entries(flags, name)]
    return joined


def check_options(settings: Settings, flags: Settings | None = None) -> Options:
    """Check settings and convert them to options; `flags` are those of the command line. Raises: InvalidParameter."""
    for name in settings:
        if FLAGS[name].use is Use.REFUSED and settings[name] not in (False, "", "0"):
            raise InvalidParameter(f"--{name} is not implemented, and ignoring it would not be safe")
    _check_values(settings)
    runtime = str(settings.get("default-runtime", "crun"))
    if runtime not in RUNTIMES:
        raise InvalidParameter(f"unknown or invalid runtime name: {runtime}; use one of {', '.join(RUNTIMES)}")
    hosts = settings.get("host") or [DEFAULT_HOST]
    tls = read_tls(settings)
    return Options(
        data_root=_root(settings.get("data-root", "/var/lib/bennu")),
        exec_root=_root(settings.get("exec-root", "/run/bennu")),
        hosts=tuple(check_host(host, tls) for host in (hosts if isinstance(hosts, list) else [])),
        tls=tls,
        pidfile=Path(str(settings["pidfile"])) if settings.get("pidfile") else None,
        log_level=_log_level(settings),
        log_format=str(settings.get("log-format") or "text"),
        group=str(settings.get("group", "")),
        network=read_network_settings(settings),
        resolving=read_resolving(settings),
        oci_runtime=runtime,
        default_stop_timeout_s=_read_whole("default-stop-timeout", settings, 10),
        keep_deaths=_read_count("keep-deaths", settings.get("keep-deaths", "100")),
        shutdown_containers=bool(settings.get("shutdown-containers")),
        node=HostNode(
            labels=dict(label.partition("=")[::2] for label in read_labels(_entries(settings, "label"))),
            generic=read_generic(_entries(settings, "node-generic-resource")),
            advertised=str(settings.get("swarm-default-advertise-addr", "")),
        ),
        metrics=read_metrics_address(str(settings.get("metrics-addr", ""))),
        engine=read_engine_settings(settings),
        proxies={name: str(settings[name]) for name in PROXIES if settings.get(name)},
        features=read_features(settings),
        settings=settings,
        flags=flags or {},
        config_file=Path(str(settings["config-file"])) if settings.get("config-file") else None,
        validate_only=bool(settings.get("validate")),
        repair_only=bool(settings.get("repair")),
        warnings=tuple(_warnings(settings)),
    )


def _check_values(settings: Settings) -> None:
    if _log_level(settings) not in LEVELS:
        raise InvalidParameter(f"invalid logging level: {_log_level(settings)}")
    if (settings.get("log-format") or "text") not in FORMATS:
        raise InvalidParameter(f"invalid log format: {settings['log-format']}")
    for option in _entries(settings, "storage-opt"):
        if option.partition("=")[0] != "overlay2.override_kernel_check":
            raise InvalidParameter(f"--storage-opt {option} is not implemented")


def read_engine_settings(settings: Settings) -> EngineSettings:
    """Read the settings that the engine follows, and that a reload may change. Raises: BennuError."""
    downloads = _read_whole("max-concurrent-downloads", settings, DOWNLOADS, least=0) or DOWNLOADS
    uploads = _read_whole("max-concurrent-uploads", settings, UPLOADS, least=0) or UPLOADS
    attempts = _read_whole("max-download-attempts", settings, ATTEMPTS, least=0) or ATTEMPTS
    network = read_network_settings(settings)
    return EngineSettings(
        containers=read_container_defaults(settings),
        registries=parse_registries(
            _entries(settings, "registry-mirror"),
            _entries(settings, "insecure-registry"),
            downloads,
            uploads,
            attempts,
        ),
        seccomp_profile=seccomp_name(settings),
        init_path=str(settings.get("init-path", "")),
        cdi_folders=read_cdi_folders(settings),
        shutdown_timeout_s=_read_whole("shutdown-timeout", settings, SHUTDOWN_S, least=-1),
        debug=bool(settings.get("debug")),
        experimental=bool(settings.get("experimental")),
        labels=read_labels(_entries(settings, "label")),
        authorization_plugins=tuple(dict.fromkeys(_entries(settings, "authorization-plugin"))),
        added_runtimes=dict(entry.partition("=")[::2] for entry in _entries(settings, "add-runtime")),
        address_pools=network.pools,
        proxies=read_proxies(settings, os.environ),
    )


def read_metrics_address(text: str) -> tuple[str, int] | None:
    """Read `ADDRESS:PORT`; without an address, all of this host. Raises: InvalidParameter."""
    if not text:
        return None
    host, found, port = text.removeprefix("tcp://").rpartition(":")
    if not found or not (port.isascii() and port.isdecimal()) or int(port) > 65535:
        raise InvalidParameter(f'invalid argument "{text}" for "--metrics-addr" flag: it must look like ADDRESS:PORT')
    return host.strip("[]") or "0.0.0.0", int(port)


def read_cdi_folders(settings: Settings) -> tuple[str, ...]:
    """Read where CDI specifications are; none where CDI is switched off."""
    folders = tuple(_entries(settings, "cdi-spec-dir")) if "cdi-spec-dir" in settings else CDI_FOLDERS
    return folders if read_features(settings).get("cdi", True) and folders != ("",) else ()


def read_features(settings: Settings) -> dict[str, bool]:
    """Read `--feature name[=bool]`. Raises: InvalidParameter."""
    found: dict[str, bool] = {}
    for entry in _entries(settings, "feature"):
        name, given, value = entry.partition("=")
        try:
            found[name.strip()] = parse_bool(value) if given else True
        except ValueError as error:
            raise InvalidParameter(f'invalid argument "{entry}" for "--feature" flag: {error}') from None
    return found


def read_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Read the labels of this engine, the last of each name. Raises: InvalidParameter where two contradict."""
    found: dict[str, str] = {}
    for label in labels:
        name, found_value, value = label.partition("=")
        if not found_value:
            raise InvalidParameter(f"bad attribute format: {label}")
        if found.setdefault(name, value) != value:
            raise InvalidParameter(f"conflict labels for {name}={value} and {name}={found[name]}")
    return tuple(dict.fromkeys(labels))


def _log_level(settings: Settings) -> str:
    return "debug" if settings.get("debug") else str(settings.get("log-level") or "info").lower()


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


def _read_whole(name: str, settings: Settings, usual: int, least: int | None = None) -> int:
    text = str(settings.get(name, usual))
    if not text.isascii() or not text.removeprefix("-").isdecimal() or len(text) > 10:
        raise InvalidParameter(f'invalid argument "{text}" for "--{name}" flag: not a whole number')
    if least is not None and int(text) < least:
        raise InvalidParameter(f"invalid {name.replace('-', ' ')}: {text}")
    return int(text)


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
