"""What keeps a host that forwards only because of us from being a router: a table as a pure function.

It is one for all daemons of a network namespace, and not part of any daemon's own: it has to hold for as long as
forwarding is on because of one of them, whoever of them lives. Each adds its bridges.
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
    """Drop what neither comes from nor goes to a bridge of ours."""

    families: tuple[str, ...]  # that forward because of us: ipv4, ipv6
    routers: tuple[tuple[str, str], ...] = ()  # families, and interfaces from which it was forwarded before
    bridged: tuple[str, ...] = ()  # bridges whose own traffic the rules see although nobody forwards it


def render_guard(guard: ForwardingGuard, bridges: Iterable[str]) -> str:
    """Put it in force, or put it right; the bridges of other daemons stay in it."""
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
    """These bridges are gone, or going; the rest of the table stays."""
    names = _quoted(bridges)
    # What is deleted is added first: to delete what is not there fails.
    elements = f"add element {BRIDGES} {{ {names} }}\ndelete element {BRIDGES} {{ {names} }}\n"
    return "".join(f"{line}\n" for line in _PLACE) + elements if names else ""


def render_guard_removal() -> str:
    return f"add table inet {TABLE}\ndelete table inet {TABLE}\n"


def is_in_force(guard: ForwardingGuard, bridges: Iterable[str], listing: bytes) -> bool:
    """Whether what `nft -j list table` prints is all of it."""
    rules = sum(1 for item in _items(listing) if "rule" in item)
    return rules == len(_rules(guard)) and set(bridges) <= set(guarded_bridges(listing))


def guarded_bridges(listing: bytes) -> list[str]:
    """The bridges of all daemons in such a listing."""
    return [name for item in _items(listing) if "set" in item for name in item["set"].get("elem", ())]


def _items(listing: bytes) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(listing or b"{}").get("nftables", [])
    return items


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in sorted(names))
