"""The command line of bennud: dockerd's flag names, so that what starts dockerd starts bennud.

Each flag is honoured, or refused because ignoring it would be unsafe, or accepted with one warning line.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from bennu.errors import InvalidParameter
from bennu.go.bool import parse_bool


class Kind(Enum):
    SWITCH = "switch"
    VALUE = "value"
    LIST = "list"  # repeatable


class Use(Enum):
    HONOURED = "honoured"
    REFUSED = "refused"  # asks for safety that is not here
    WITHOUT_EFFECT = "without effect"


@dataclass(frozen=True, slots=True)
class Flag:
    kind: Kind
    use: Use = Use.WITHOUT_EFFECT
    short: str = ""
    file_key: str = ""  # the name in a configuration file where it differs
    help: str = ""


def _switch(use: Use = Use.WITHOUT_EFFECT, short: str = "", help: str = "") -> Flag:
    return Flag(Kind.SWITCH, use, short, help=help)


def _value(use: Use = Use.WITHOUT_EFFECT, short: str = "", help: str = "") -> Flag:
    return Flag(Kind.VALUE, use, short, help=help)


def _list(use: Use = Use.WITHOUT_EFFECT, short: str = "", file_key: str = "", help: str = "") -> Flag:
    return Flag(Kind.LIST, use, short, file_key, help)


YES: Final = Use.HONOURED
NO: Final = Use.REFUSED

FLAGS: Final[Mapping[str, Flag]] = {
    "allow-direct-routing": _switch(YES, help="published ports are reached at the containers' addresses, too"),
    "bip": _value(YES, help="address and prefix of the default bridge"),
    "bip6": _value(YES, help="the same, of IPv6"),
    "bridge": _value(YES, "b", "an existing bridge as the default one, or none (default: our own)"),
    "bridge-accept-fwmark": _value(YES, help="MARK[/MASK] of packets that reach every container"),
    "config-file": _value(YES, help="JSON file with the same names (default /etc/bennu/daemon.json)"),
    "data-root": _value(YES, help="durable state (default /var/lib/bennu)"),
    "debug": _switch(YES, "D", "the same as --log-level debug"),
    "default-address-pool": _list(
        YES, "", "default-address-pools", "base=RANGE,size=PREFIX of new networks; repeatable"
    ),
    "default-gateway": _value(YES, help="where default routes on the default bridge lead (default: to the bridge)"),
    "default-gateway-v6": _value(YES, help="the same, of IPv6"),
    "default-network-opt": _list(YES, "", "default-network-opts", "DRIVER=OPTION=VALUE of new networks; repeatable"),
    "default-runtime": _value(YES, help="crun (default) or runc"),
    "default-stop-timeout": _value(YES, help="seconds between the stop signal and SIGKILL (default 10)"),
    "dns": _list(YES, help="name server of containers that name none; repeatable"),
    "host-gateway-ip": _list(
        YES, "", "host-gateway-ips", "address of `host-gateway` in --add-host; one of each family"
    ),
    "dns-opt": _list(YES, "", "dns-opts", "resolver option of containers that name none; repeatable"),
    "dns-search": _list(YES, help="search domain of containers that name none; repeatable"),
    "exec-root": _value(YES, help="run-time state (default /run/bennu)"),
    "firewall-backend": _value(YES, help="nftables (there is no other)"),
    "fixed-cidr": _value(YES, help="where addresses on the default bridge come from"),
    "fixed-cidr-v6": _value(YES, help="the same, of IPv6"),
    "group": _value(YES, "G", "group that may use the unix socket (default: root only)"),
    "help": _switch(YES, help="print this and exit"),
    "host": _list(
        YES,
        "H",
        "hosts",
        "unix:///PATH, tcp://ADDRESS:PORT or fd:// (default unix:///run/bennu/bennu.sock); repeatable",
    ),
    "icc": _switch(YES, help="containers on the default bridge may talk to each other (default true)"),
    "ip": _value(YES, help="where ports of the default bridge are published (default 0.0.0.0)"),
    "ip-forward": _switch(YES, help="switch forwarding on where it is off (default true)"),
    "ip-forward-no-drop": _switch(YES, help="and do not guard it: this host becomes a router"),
    "ip-masq": _switch(YES, help="what leaves the default bridge gets the host's address (default true)"),
    "ip6tables": _switch(YES, help="make rules of IPv6 (default true)"),
    "iptables": _switch(YES, help="make rules of IPv4 (default true)"),
    "ipv6": _switch(YES, help="the default bridge has IPv6, too"),
    "keep-deaths": _value(YES, help="death certificates kept of each container (default 100)"),
    "log-level": _value(YES, "l", "debug, info (default), warn, error or fatal"),
    "mtu": _value(YES, help="of the default bridge (default 1500)"),
    "pidfile": _value(YES, "p", "write the process id there"),
    "repair": _switch(YES, help="make damaged state anew from what lies beside it, and exit (bennu doctor --repair)"),
    "shutdown-containers": _switch(YES, help="stop all containers when bennud ends (they live on otherwise)"),
    "socket-lb": _switch(
        YES, help="clients on this host reach published ports without translation of packets (default true)"
    ),
    "tls": _switch(YES, help="implied by --tlsverify, without which it opens no TCP port"),
    "tlscacert": _value(YES, help="CA that client certificates must be signed by (default ~/.docker/ca.pem)"),
    "tlscert": _value(YES, help="certificate of bennud (default ~/.docker/cert.pem)"),
    "tlskey": _value(YES, help="its key (default ~/.docker/key.pem)"),
    "tlsverify": _switch(YES, help="let clients in over TCP that have a certificate of the CA's"),
    "userland-proxy": _switch(YES, help="carry IPv6 clients to ports of containers that have IPv4 only (default true)"),
    "validate": _switch(YES, help="check the configuration and exit"),
    "version": _switch(YES, "v", "print the version and exit"),
    "authorization-plugin": _list(
        YES, file_key="authorization-plugins", help="plugin that may refuse requests; repeatable, in this order"
    ),
    "no-new-privileges": _switch(YES, help="no process of a container gains privileges, unless it says otherwise"),
    "rootless": _switch(NO),
    "seccomp-profile": _value(YES, help="file of the default filter of system calls, builtin or unconfined"),
    "selinux-enabled": _switch(NO),
    "userns-remap": _value(NO),
    "add-runtime": _list(file_key="runtimes"),
    "allow-nondistributable-artifacts": _list(),
    "api-cors-header": _value(NO),
    "cdi-spec-dir": _list(YES, file_key="cdi-spec-dirs", help="folder of CDI specifications; repeatable"),
    "cgroup-parent": _value(YES, help="control group above all containers (default /bennu)"),
    "containerd": _value(),
    "containerd-namespace": _value(),
    "containerd-plugins-namespace": _value(),
    "cpu-rt-period": _value(NO),
    "cpu-rt-runtime": _value(NO),
    "cri-containerd": _switch(),
    "default-cgroupns-mode": _value(YES, help="host or private: control group namespace of containers"),
    "default-ipc-mode": _value(YES, help="private (default) or shareable: IPC namespace of containers"),
    "default-shm-size": _value(YES, help="size of /dev/shm in containers (default 64m)"),
    "default-ulimit": _list(
        YES, file_key="default-ulimits", help="limit of processes in containers, name=soft[:hard]; repeatable"
    ),
    "exec-opt": _list(YES, file_key="exec-opts", help="native.cgroupdriver=cgroupfs, which is the only one"),
    "experimental": _switch(YES, help="say in /info and /version that experimental features are on; there are none"),
    "feature": _list(YES, file_key="features", help="cdi=false switches CDI off; other names change nothing"),
    "http-proxy": _value(YES, help="URL of the proxy to fetch over HTTP by"),
    "https-proxy": _value(YES, help="URL of the proxy to fetch over HTTPS by"),
    "init": _switch(YES, help="containers have an init that forwards signals and reaps processes"),
    "init-path": _value(YES, help="program of that init (default docker-init or tini)"),
    "insecure-registry": _list(
        YES, file_key="insecure-registries", help="host or subnet of registries without TLS; repeatable"
    ),
    "label": _list(YES, file_key="labels", help="Label of this engine, for placement constraints (key=value)"),
    "live-restore": _switch(),
    "log-driver": _value(YES, help="json-file (default), local or none: driver of containers that name none"),
    "log-format": _value(YES, help="text (default) or json"),
    "log-opt": _list(YES, file_key="log-opts", help="option of that driver, such as max-size=10m; repeatable"),
    "max-concurrent-downloads": _value(YES, help="layers fetched at a time by each pull (default 3)"),
    "max-concurrent-uploads": _value(YES, help="layers sent at a time by each push (default 5)"),
    "max-download-attempts": _value(YES, help="how often a layer's download is tried that breaks off (default 5)"),
    "metrics-addr": _value(YES, help="ADDRESS:PORT to answer GET /metrics on, which the API answers, too"),
    "network-control-plane-mtu": _value(),
    "no-proxy": _value(YES, help="hosts and subnets to fetch from without proxy, separated by commas"),
    "node-generic-resource": _list(
        YES, file_key="node-generic-resources", help="What this node has for services to reserve (kind=number or name)"
    ),
    "raw-logs": _switch(YES, help="full timestamps without colours in the log, as always"),
    "registry-mirror": _list(
        YES, file_key="registry-mirrors", help="URL of a registry to ask before Docker Hub; repeatable"
    ),
    "shutdown-timeout": _value(YES, help="seconds that --shutdown-containers takes at most (default 15; -1: any)"),
    "storage-driver": _value(short="s"),
    "storage-opt": _list(
        YES, file_key="storage-opts", help="only overlay2.override_kernel_check, which changes nothing"
    ),
    "swarm-default-advertise-addr": _value(YES, help="address of this node for swarms that are begun without one"),
    "userland-proxy-path": _value(),
}
SHORT: Final = {flag.short: name for name, flag in FLAGS.items() if flag.short}

Settings = dict[str, str | bool | list[str]]  # by flag name


def parse_arguments(arguments: Sequence[str]) -> Settings:
    """Parse `--name value`, `--name=value`, `-x value`, `-xvalue`. Raises: InvalidParameter."""
    settings: Settings = {}
    remaining = iter(arguments)
    for argument in remaining:
        name, value = _split(argument)
        if FLAGS[name].kind is Kind.SWITCH:
            settings[name] = parse_switch(name, "true" if value is None else value)
            continue
        if value is None:
            value = next(remaining, None)
        if value is None:
            raise InvalidParameter(f"flag needs an argument: {argument}")
        if FLAGS[name].kind is Kind.LIST:
            former = settings.get(name, [])
            settings[name] = [*(former if isinstance(former, list) else []), value]
        else:
            settings[name] = value
    return settings


def _split(argument: str) -> tuple[str, str | None]:
    if argument.startswith("--"):
        name, has_value, value = argument[2:].partition("=")
        if name not in FLAGS:
            raise InvalidParameter(f"unknown flag: --{name}")
        return name, value if has_value else None
    if argument.startswith("-") and len(argument) > 1:
        if argument[1] not in SHORT:
            raise InvalidParameter(f"unknown shorthand flag: '{argument[1]}' in {argument}")
        return SHORT[argument[1]], argument[2:].removeprefix("=") or None
    raise InvalidParameter(f"unknown argument: {argument!r}; bennud takes flags only")


def parse_switch(name: str, value: str) -> bool:
    try:
        return parse_bool(value)
    except ValueError as error:
        raise InvalidParameter(f'invalid argument "{value}" for "--{name}" flag: {error}') from None


def help_lines() -> Iterator[str]:
    yield "Usage:  bennud [OPTIONS]"
    yield ""
    yield "A container engine that outlives its own death."
    yield ""
    for name, flag in FLAGS.items():
        if flag.use is Use.HONOURED:
            short = f"-{flag.short}, " if flag.short else "    "
            yield f"  {short}--{name:<22}{flag.help}"
    yield ""
    yield "dockerd's other flags are accepted: with a warning where they have no effect here."
