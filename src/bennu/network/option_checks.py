"""Checks the options of a bridge network (`docker network create --opt`). Pure.

The words of refusals are dockerd's: moby, libnetwork/drivers/bridge/bridge_linux.go, fromLabels. Options that neither
dockerd nor Bennu knows are kept and shown, as dockerd does.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Final

from bennu.errors import InvalidParameter
from bennu.go.bool import parse_bool
from bennu.network.model import (
    OPTION_ADVERTISE_COUNT,
    OPTION_ADVERTISE_MS,
    OPTION_DEFAULT_BRIDGE,
    OPTION_ENABLE,
    OPTION_GATEWAY_MODES,
    OPTION_HOST_BINDING,
    OPTION_HOST_IPS,
    OPTION_ICC,
    OPTION_INHIBIT_IPV4,
    OPTION_INTERFACE_PREFIX,
    OPTION_MASQUERADE,
    OPTION_MTU,
    OPTION_TRUSTED_INTERFACES,
    GatewayMode,
)

WHOLE_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,9}\Z", re.ASCII)
MTU_RANGE: Final = range(68, 65536)
# The kernel takes nearly anything, but rules name interfaces, too, and there quotes and * have a meaning.
INTERFACE_NAME: Final = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9_.@+=~-]{1,15}\Z", re.ASCII)
INTERFACE_PREFIX: Final = re.compile(r"[A-Za-z0-9_.@+=~-]{1,12}\Z", re.ASCII)  # up to three digits follow


def check_bridge_options(options: Mapping[str, str]) -> None:
    """Check the value of each option that is known. Raises: InvalidParameter, which names the option and the value."""
    for name, check in CHECKS.items():
        if name in options:
            try:
                check(options[name])
            except ValueError as error:
                raise InvalidParameter(f"failed to parse {name} value: {options[name][:100]} ({error})") from None


def _check_mode(text: str) -> None:
    if text not in set(GatewayMode):
        raise ValueError(f"unknown gateway mode {text[:100]}")


def _check_address(text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise ValueError("nil ip") from None


def _check_address_of(version: int) -> Callable[[str], None]:
    def check(text: str) -> None:
        _check_address(text)
        if ipaddress.ip_address(text).version != version:
            raise ValueError(f"not an IPv{version} address")

    return check


def _check_mtu(text: str) -> None:
    if not WHOLE_NUMBER.match(text):
        raise ValueError(f'strconv.Atoi: parsing "{text[:100]}": invalid syntax')
    if int(text) < 0:
        raise InvalidParameter(f"invalid MTU number: {text}")
    if text.startswith("+") or int(text) not in MTU_RANGE:
        raise ValueError(f"not a number from {MTU_RANGE[0]} to {MTU_RANGE[-1]}")


def _check_number_of(option: str, what: str, least: int, most: int) -> Callable[[str], None]:
    def check(text: str) -> None:
        if not WHOLE_NUMBER.match(text):
            raise InvalidParameter(f'value for option {option} "{text[:100]}" must be {what}')
        if not least <= int(text) <= most:
            raise InvalidParameter(f"{option} must be in the range {least} to {most}")

    return check


def _check_interfaces(text: str) -> None:
    for name in filter(None, text.split(":")):
        if not INTERFACE_NAME.match(name):
            raise ValueError(f"no interface can be called {name[:100]}")


def _check_prefix(text: str) -> None:
    if text and not INTERFACE_PREFIX.match(text):
        raise ValueError("no interface can have a name that begins like this")


CHECKS: Final[Mapping[str, Callable[[str], object]]] = {
    OPTION_ENABLE[4]: parse_bool,
    OPTION_ENABLE[6]: parse_bool,
    OPTION_ICC: parse_bool,
    OPTION_MASQUERADE: parse_bool,
    OPTION_INHIBIT_IPV4: parse_bool,
    OPTION_DEFAULT_BRIDGE: parse_bool,
    OPTION_MTU: _check_mtu,
    OPTION_GATEWAY_MODES[4]: _check_mode,
    OPTION_GATEWAY_MODES[6]: _check_mode,
    OPTION_HOST_BINDING: _check_address,
    OPTION_HOST_IPS[4]: _check_address_of(4),
    OPTION_HOST_IPS[6]: _check_address_of(6),
    OPTION_TRUSTED_INTERFACES: _check_interfaces,
    OPTION_INTERFACE_PREFIX: _check_prefix,
    OPTION_ADVERTISE_COUNT: _check_number_of(OPTION_ADVERTISE_COUNT, "an integer", 0, 3),
    OPTION_ADVERTISE_MS: _check_number_of(OPTION_ADVERTISE_MS, "integer milliseconds", 100, 2000),
}
