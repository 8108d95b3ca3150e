"""The nftables table that keeps a host from being a router when only we switched forwarding on. Pure.

There is one table for all daemons of a network namespace, because it must hold as long as any of them needs
forwarding, whichever lives. Each daemon adds its bridges. dockerd sets the policy of the FORWARD chain to DROP instead
(moby, libnetwork/drivers/bridge/setup_ip_forwarding.go).
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bennu.host.forwarding import TABLE

CHAIN: Final = f"inet {TABLE} forward"
BRIDGES: Final = f"inet {TABLE} bridges"
_PLACE: Final = (f"add table inet {TABLE}", f"add set {BRIDGES} {{ type ifname; }}")


@dataclass(frozen=True, slots=True)
class ForwardingGuard:
    """Drop forwarded packets that neither come from nor go to a bridge of ours.

    `test_a_host_that_forwards_because_of_us_is_no_router_between_its_networks`.
    """

    families: tuple[str, ...]  # switched on by us: ipv4, ipv6
    routers: tuple[tuple[str, str], ...] = ()  # (family, interface) that were forwarded from before
    bridged: tuple[str, ...] = ()  # bridges whose internal traffic the rules see (br_netfilter)


def render_guard(guard: ForwardingGuard, bridges: Iterable[str]) -> str:
    """Render the whole guard; bridges of other daemons stay in its set. Idempotent."""
    lines = [
        *_PLACE,
        f"add chain {CHAIN} {{ type filter hook forward priority filter; policy accept; }}",
        f"flush chain {CHAIN}",
        *(f"add rule {CHAIN} {rule}" for rule in _rules(guard)),
    ]
    if names := _quoted(bridges):
        lines.append(f"add element {BRIDGES} {{ {names} }}")
    return "".join(f"{line}\n" for line in lines)


def _rules(guard: ForwardingGuard) -> Sequence[str]:
    pairs = ", ".join(f'"{name}" . "{name}"' for name in guard.bridged)
    return [
        "iifname @bridges accept",
        "oifname @bridges accept",
        *([f"iifname . oifname {{ {pairs} }} accept"] if pairs else []),
        *(f'meta nfproto {family} iifname "{name}" accept' for family, name in guard.routers),
        *(f"meta nfproto {family} drop" for family in guard.families),
    ]


def render_bridge_removal(bridges: Iterable[str]) -> str:
    """Render the removal of these bridges from the set; the rest of the table stays. Idempotent."""
    names = _quoted(bridges)
    # What is deleted is added first: to delete what is not there fails.
    elements = f"add element {BRIDGES} {{ {names} }}\ndelete element {BRIDGES} {{ {names} }}\n"
    return "".join(f"{line}\n" for line in _PLACE) + elements if names else ""


def render_guard_removal() -> str:
    """Render the removal of the table. Idempotent."""
    return f"add table inet {TABLE}\ndelete table inet {TABLE}\n"


def is_in_force(guard: ForwardingGuard, bridges: Iterable[str], listing: bytes) -> bool:
    """Check that what `nft -j list table` prints has all rules of the guard and these bridges."""
    rules = sum(1 for item in _items(listing) if "rule" in item)
    return rules == len(_rules(guard)) and set(bridges) <= set(guarded_bridges(listing))


def guarded_bridges(listing: bytes) -> list[str]:
    """Return the bridges of all daemons in such a listing."""
    return [name for item in _items(listing) if "set" in item for name in item["set"].get("elem", ())]


def _items(listing: bytes) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(listing or b"{}").get("nftables", [])
    return items


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in sorted(names))
