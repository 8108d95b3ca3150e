"""Works out the subnet of the default bridge from the administrator's flags and the bridge's own addresses. Pure.

The rules are dockerd's: moby, daemon/daemon_unix.go, getDefaultBridgeIPAMConf and selectBIP.

    --bip                    the bridge's address, and so the subnet; only of a bridge of ours
    an address of the bridge the same; of several the one whose subnet has --fixed-cidr in it
    --fixed-cidr             where containers' addresses come from; the subnet, too, when nothing else says which

On a bridge of ours an address that --fixed-cidr has left behind is given up, and one whose subnet is too small for it
gets a larger one. On an administrator's bridge nothing is changed: a --fixed-cidr that does not fit is dropped with a
warning, and a --fixed-cidr-v6 ends the start.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface

from bennu.errors import InvalidParameter
from bennu.network.ipam.addresses import Subnet
from bennu.network.ipam.planning import LINK_LOCAL, IpamConfig
from bennu.network.model import AUX_GATEWAYS, FamilyFlags

Interface = IPv4Interface | IPv6Interface


@dataclass(frozen=True, slots=True)
class DefaultSubnet:
    """What is known of the subnet before anything is chosen, and what the log should say."""

    config: IpamConfig  # without a subnet: any of the pools
    warning: str = ""


def plan_default_subnet(flags: FamilyFlags, addresses: Sequence[str], *, is_foreign: bool) -> DefaultSubnet:
    """Work out one family's subnet. Raises: InvalidParameter.

    `addresses` are the bridge's, with their prefix lengths.
    """
    fixed_at, fixed = _parse_fixed(flags)
    if flags.bip:
        own: Interface | None = _parse_bip(flags)
    else:
        candidates = [ipaddress.ip_interface(text) for text in addresses]
        own = select_address(
            [one for one in candidates if one.version == flags.version], fixed_at, fixed, is_foreign=is_foreign
        )
    aux = {AUX_GATEWAYS[flags.version]: flags.default_gateway} if flags.default_gateway else None
    config = IpamConfig(auxiliary_addresses=aux)
    warning = ""
    if own is not None:
        config.subnet, config.gateway = str(own.network), str(own.ip)
    if fixed is not None and fixed_at is not None:
        config.ip_range = str(fixed)
        if own is None:
            config.subnet = str(fixed)
        elif is_foreign and (fixed_at not in own.network or fixed.prefixlen < own.network.prefixlen):
            problem = (
                f"--fixed-cidr{flags.suffix}={flags.fixed_cidr} is outside of every subnet of the bridge's addresses"
            )
            if flags.version == 6:
                raise InvalidParameter(problem)
            config.ip_range, warning = "", f"{problem}, and is passed over"
    return DefaultSubnet(config, warning)


def select_address(
    addresses: Sequence[Interface], fixed_at: Interface | None, fixed: Subnet | None, *, is_foreign: bool
) -> Interface | None:
    """Select the bridge's address that becomes the gateway, with the subnet that it is to have; None: none of them.

    `fixed_at` is the address of --fixed-cidr as it was written, `fixed` its network.
    """
    is_link_local = fixed_at is not None and fixed_at in LINK_LOCAL
    # The kernel gives each interface with IPv6 a link-local address; it counts only if such addresses are asked for.
    usable = [one for one in addresses if is_link_local or one.ip not in LINK_LOCAL]
    if not usable:
        return None
    chosen = usable[0]
    if fixed is not None and fixed_at is not None:
        around = next((one for one in usable if fixed_at in one.network), None)
        within = next((one for one in usable if one.ip in fixed), None)
        chosen = around or within or chosen
    if is_foreign or fixed is None or fixed_at is None:
        return chosen
    if fixed_at not in chosen.network:
        return None
    if fixed.prefixlen < chosen.network.prefixlen:
        return ipaddress.ip_interface(f"{chosen.ip}/{fixed.prefixlen}")
    return chosen


def _parse_fixed(flags: FamilyFlags) -> tuple[Interface | None, Subnet | None]:
    if not flags.fixed_cidr:
        return None, None
    try:
        at = ipaddress.ip_interface(flags.fixed_cidr)
        if at.version != flags.version or "/" not in flags.fixed_cidr:
            raise ValueError
    except ValueError:
        raise InvalidParameter(
            f"parse --fixed-cidr{flags.suffix} failed: invalid CIDR address: {flags.fixed_cidr[:100]}"
        ) from None
    return at, at.network


def _parse_bip(flags: FamilyFlags) -> Interface:
    name = "bip" if flags.version == 4 else "bip6"
    try:
        interface = ipaddress.ip_interface(flags.bip)
        if interface.version != flags.version or "/" not in flags.bip:
            raise ValueError
    except ValueError:
        raise InvalidParameter(f"parse --{name} failed: invalid CIDR address: {flags.bip[:100]}") from None
    return interface
