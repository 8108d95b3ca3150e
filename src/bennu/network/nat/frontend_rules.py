"""Renders frontends of services to nftables: pure, values in and text for `nft -f -` out.

    packet to a published port ──► map `services` ──► chain of the port ─┐   each new connection
    packet to a virtual address ─► map `vips` ──────► chain of the VIP ──┴─► goes to the next of the tasks

A connection keeps the task it was given, whatever changes after: the kernel translates only its first packet by these
rules. One lookup finds the chain however many services there are, and a change of one service is text about that one.
A port or address without tasks refuses at once: nobody waits for a time-out, and no program of the host answers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from bennu.network.frontends import Frontend, FrontendAddress, backends_of

VERDICTS: Final = {"services": "inet_proto . inet_service : verdict", "vips": "ifname . ipv4_addr : verdict"}
REFUSAL: Final = ("meta l4proto tcp reject with tcp reset", "reject")


@dataclass(frozen=True, slots=True)
class VerdictEntry:
    """An element of a verdict map, and the chain that it jumps to with that chain's rules."""

    map_name: str
    key: str
    chain: str
    rules: tuple[str, ...]

    @property
    def element(self) -> str:
        return f"{self.key} : goto {self.chain}"


def verdict_entries(frontend: Frontend | None) -> dict[str, VerdictEntry]:
    """List the entries of one service, by the name of their chain; none for None."""
    if frontend is None:
        return {}
    found = [_port_entry(frontend, proto, number) for proto, number in frontend.ports]
    found += [_vip_entry(frontend, address) for address in frontend.addresses if address.vip]
    return {one.chain: one for one in found}


def render_frontend_changes(table: str, changes: Iterable[tuple[Frontend | None, Frontend | None]]) -> str:
    """Render the changes of services, given as (before, after) with None for nothing; "" when nothing changes.

    Deletions come first, so a port may move from one service to another in one transaction
    (`test_a_port_that_moves_to_another_service_is_taken_before_it_is_given`).
    """
    gone: list[str] = []
    came: list[str] = []
    for before, after in changes:
        old, new = verdict_entries(before), verdict_entries(after)
        for chain, entry in old.items():
            if chain not in new:
                gone.append(f"delete element inet {table} {entry.map_name} {{ {entry.key} }}")
                gone.append(f"delete chain inet {table} {chain}")
        for chain, entry in new.items():
            known = old.get(chain)
            if known == entry:
                continue
            came.append(f"flush chain inet {table} {chain}" if known else f"add chain inet {table} {chain}")
            came += [f"add rule inet {table} {chain} {rule}" for rule in entry.rules]
            if known is None:
                came.append(f"add element inet {table} {entry.map_name} {{ {entry.element} }}")
    return "".join(f"{line}\n" for line in (*gone, *came))


def _port_entry(frontend: Frontend, proto: str, number: int) -> VerdictEntry:
    targets = [(ip, str(port)) for ip, port in backends_of(frontend, proto, number)]
    chain = f"port_{proto}_{number}_{frontend.service_id}"
    return VerdictEntry("services", f"{proto} . {number}", chain, _rules(targets, match=f"meta l4proto {proto} "))


def _vip_entry(frontend: Frontend, address: FrontendAddress) -> VerdictEntry:
    targets = [
        (one.ip,) for backend in frontend.backends for one in backend.addresses if one.network_id == address.network_id
    ]
    return VerdictEntry("vips", f'"{address.bridge}" . {address.vip}', f"vip_{address.vip}", _rules(targets))


def _rules(targets: Sequence[tuple[str, ...]], match: str = "") -> tuple[str, ...]:
    """Render a chain that translates to the targets in turn; with ports, nft demands a match of the protocol."""
    if not targets:
        return REFUSAL
    if len(targets) == 1:
        return (f"{match}dnat ip to {':'.join(targets[0])}",)
    choices = ", ".join(f"{number} : {' . '.join(target)}" for number, target in enumerate(targets))
    return (f"{match}dnat ip to numgen inc mod {len(targets)} map {{ {choices} }}",)
