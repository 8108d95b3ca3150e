"""What the command line says of networks and names."""

import ipaddress
from typing import Final

from bennu.daemon.flags import Settings
from bennu.engine.context import Resolving
from bennu.errors import InvalidParameter, NotImplementedHere
from bennu.network import NetworkSettings

LARGEST_MTU: Final = 65535


def read_network_settings(settings: Settings) -> NetworkSettings:
    """Read the settings of networks. Raises: InvalidParameter, NotImplementedHere."""
    usual = NetworkSettings()
    return NetworkSettings(
        bridge=str(settings.get("bridge", "")),
        bip=str(settings.get("bip", "")),
        mtu=_read_mtu(str(settings.get("mtu", "0"))) or usual.mtu,
        icc=bool(settings.get("icc", usual.icc)),
        ip_masq=bool(settings.get("ip-masq", usual.ip_masq)),
        socket_lb=bool(settings.get("socket-lb", usual.socket_lb)),
        ip=_read_host_address(str(settings.get("ip", usual.ip))),
        pools=tuple(_read_pool(pool) for pool in _many(settings, "default-address-pool")),
    )


def read_resolving(settings: Settings) -> Resolving:
    """Read the settings of name resolution. Raises: InvalidParameter."""
    return Resolving(
        servers=tuple(_read_address("dns", server) for server in _many(settings, "dns")),
        search=tuple(_many(settings, "dns-search")),
        options=tuple(_many(settings, "dns-opt")),
        host_gateways=_read_host_gateways(_many(settings, "host-gateway-ip")),
    )


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


def _read_host_address(text: str) -> str:
    address = _read_address("ip", text)
    if ":" in address:
        raise NotImplementedHere("an IPv6 address for --ip is not implemented: the default bridge has IPv4 only")
    return address


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
    if base.version == 6:
        raise NotImplementedHere("IPv6 networks in --default-address-pool are not implemented")
    if not base.prefixlen <= size <= 30:
        raise InvalidParameter(f"{wrong}size must be from {base.prefixlen} to 30")
    return str(base), size
