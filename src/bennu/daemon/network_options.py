"""What the command line says of networks and names."""

import ipaddress
from typing import Final

from bennu.daemon.flags import Settings
from bennu.engine.context import Resolving
from bennu.errors import InvalidParameter, NotImplementedHere
from bennu.network import NetworkSettings
from bennu.network.ipam.default_subnet import plan_default_subnet
from bennu.network.option_checks import check_bridge_options

LARGEST_MTU: Final = 65535


def read_network_settings(settings: Settings) -> NetworkSettings:
    """Read the settings of networks. Raises: InvalidParameter, NotImplementedHere."""
    usual = NetworkSettings()
    backend = _text(settings, "firewall-backend")
    if backend not in ("", "nftables"):
        raise NotImplementedHere(f"--firewall-backend {backend[:100]} is not implemented: there is nftables only")
    read = NetworkSettings(
        bridge=_text(settings, "bridge"),
        ipv6=_yes(settings, "ipv6", usual.ipv6),
        bip=_text(settings, "bip"),
        bip6=_text(settings, "bip6"),
        fixed_cidr=_text(settings, "fixed-cidr"),
        fixed_cidr_v6=_text(settings, "fixed-cidr-v6"),
        default_gateway=_read_gateway(settings, "default-gateway", 4),
        default_gateway_v6=_read_gateway(settings, "default-gateway-v6", 6),
        mtu=_read_mtu(_text(settings, "mtu", "0")) or usual.mtu,
        icc=_yes(settings, "icc", usual.icc),
        iptables=_yes(settings, "iptables", usual.iptables),
        ip6tables=_yes(settings, "ip6tables", usual.ip6tables),
        ip_masq=_yes(settings, "ip-masq", usual.ip_masq),
        ip_forward=_yes(settings, "ip-forward", usual.ip_forward),
        ip_forward_no_drop=_yes(settings, "ip-forward-no-drop", usual.ip_forward_no_drop),
        allow_direct_routing=_yes(settings, "allow-direct-routing", usual.allow_direct_routing),
        accept_fwmark=_read_mark(_text(settings, "bridge-accept-fwmark")),
        userland_proxy=_yes(settings, "userland-proxy", usual.userland_proxy),
        socket_lb=_yes(settings, "socket-lb", usual.socket_lb),
        ip=_read_address("ip", _text(settings, "ip", usual.ip)),
        pools=tuple(_read_pool(pool) for pool in _many(settings, "default-address-pool")),
        default_options=_read_default_options(settings),
    )
    _check_together(read)
    return read


def _check_together(read: NetworkSettings) -> None:
    """Refuse flags that exclude each other, in dockerd's words (moby, daemon/daemon_unix.go, verifyDaemonSettings)."""
    for name, given in (("bip", read.bip), ("bip6", read.bip6)):
        if read.bridge and given:
            raise InvalidParameter(f"You specified -b & --{name}, mutually exclusive options. Please specify only one")
    for name, has_rules in (("iptables", read.iptables), ("ip6tables", read.ip6tables or not read.ipv6)):
        if not read.icc and not has_rules:
            raise InvalidParameter(
                f"You specified --{name}=false with --icc=false. ICC=false uses {name} to function. "
                f"Please set --icc or --{name} to true"
            )
    for flags in read.families:
        plan_default_subnet(flags, (), is_foreign=False)  # what cannot be read is said before anything is started


def read_resolving(settings: Settings) -> Resolving:
    """Read the settings of name resolution. Raises: InvalidParameter."""
    return Resolving(
        servers=tuple(_read_address("dns", server) for server in _many(settings, "dns")),
        search=tuple(_many(settings, "dns-search")),
        options=tuple(_many(settings, "dns-opt")),
        host_gateways=_read_host_gateways(_many(settings, "host-gateway-ip")),
    )


def _text(settings: Settings, name: str, usual: str = "") -> str:
    return str(settings.get(name, usual))


def _yes(settings: Settings, name: str, usual: bool) -> bool:
    return bool(settings.get(name, usual))


def _many(settings: Settings, name: str) -> list[str]:
    given = settings.get(name, [])
    return given if isinstance(given, list) else []


def _read_mtu(text: str) -> int:
    if not text.isdecimal() or int(text) > LARGEST_MTU:
        raise InvalidParameter(f'invalid argument "{text}" for "--mtu" flag: not a number from 0 to {LARGEST_MTU}')
    return int(text)


def _read_address(flag: str, text: str) -> str:
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError:
        raise InvalidParameter(f'invalid argument "{text}" for "--{flag}" flag: {text} is not an ip address') from None


def _read_host_gateways(texts: list[str]) -> tuple[str, ...]:
    """Read the addresses of `--host-gateway-ip`: one, or one of each family."""
    addresses = tuple(_read_address("host-gateway-ip", text) for text in texts)
    if len(addresses) > 2:
        raise InvalidParameter("only two host gateway IP addresses can be specified")
    if len({":" in address for address in addresses}) < len(addresses):
        raise InvalidParameter("only one IPv4 and one IPv6 host gateway IP address can be specified")
    return addresses


def _read_gateway(settings: Settings, flag: str, version: int) -> str:
    text = _text(settings, flag)
    if not text:
        return ""
    address = _read_address(flag, text)
    if ipaddress.ip_address(address).version != version:
        raise InvalidParameter(f'invalid argument "{text}" for "--{flag}" flag: {text} is not an IPv{version} address')
    return address


def _read_mark(text: str) -> str:
    """Read MARK or MARK/MASK, each a number of 32 bits in any of Go's forms; as hexadecimal numbers."""
    if not text:
        return ""
    try:
        numbers = [int(part, 0) for part in text.split("/")]
        if len(numbers) > 2 or not all(0 <= number < 2**32 for number in numbers):
            raise ValueError
    except ValueError:
        raise InvalidParameter(
            f'invalid argument "{text}" for "--bridge-accept-fwmark" flag: not MARK[/MASK]'
        ) from None
    return "/".join(hex(number) for number in numbers)


def _read_default_options(settings: Settings) -> dict[str, dict[str, str]]:
    """Read `DRIVER=OPTION=VALUE` of the command line, or the configuration file's options by driver."""
    options: dict[str, dict[str, str]] = {}
    for text in _many(settings, "default-network-opt"):
        driver, _, rest = text.partition("=")
        option, equals, value = rest.partition("=")
        if not driver or not option or not equals:
            raise InvalidParameter(
                f'invalid argument "{text}" for "--default-network-opt" flag: must be of the form DRIVER=OPTION=VALUE'
            )
        options.setdefault(driver, {})[option] = value
    for driver, given in options.items():
        if driver == "bridge":
            check_bridge_options(given)
    return options


def _read_pool(text: str) -> tuple[str, int]:
    """Read an address pool: `base=10.0.0.0/16,size=24`."""
    wrong = f'invalid argument "{text}" for "--default-address-pool" flag: '
    fields: dict[str, str] = {}
    for field in text.split(","):
        key, equals, value = field.strip().partition("=")
        if not equals:
            raise InvalidParameter(f"{wrong}invalid field '{field}' must be a key=value pair")
        if key.lower() not in ("base", "size"):
            raise InvalidParameter(f"{wrong}unexpected key '{key}' in '{field}'")
        fields[key.lower()] = value
    try:
        base, size = ipaddress.ip_network(fields.get("base", ""), strict=False), int(fields.get("size", ""))
    except ValueError as error:
        raise InvalidParameter(f"{wrong}{error}") from None
    longest = base.max_prefixlen - 2
    if not base.prefixlen <= size <= longest:
        raise InvalidParameter(f"{wrong}size must be from {base.prefixlen} to {longest}")
    return str(base), size
