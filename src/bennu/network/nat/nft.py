"""Writes the rules with `nft`: one process at a time, which takes all changes that came while the last one ran."""

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from bennu.errors import BennuError
from bennu.host.forwarding import TABLE
from bennu.network.frontends import Frontend
from bennu.network.nat.forwarding_guard import guarded_bridges, is_in_force, render_guard_removal
from bennu.network.nat.frontend_rules import render_frontend_changes, verdict_entries
from bennu.network.nat.rules import Ruleset, chains_of, render_change, render_guard_change, render_removal, render_table
from bennu.network.socket_lb import SocketLoadBalancer
from bennu.process import run

NFT_TIMEOUT_S: Final = 30
NETLINK_NETFILTER: Final = 12
NFNL_SUBSYS_NFTABLES: Final = 10
NFT_MSG_NEWGEN: Final = 15
NFT_MSG_GETGEN: Final = 16
NLM_F_REQUEST: Final = 1
NFTA_GEN_ID: Final = 1
log = logging.getLogger(__name__)


class FirewallFailure(BennuError):
    """nftables refused; the text says why."""


class Firewall:
    """The daemon's nftables table. Callers change what `wanted()` returns, or `frontends`, then await `apply`."""

    def __init__(
        self,
        table: str,
        socket_lb: SocketLoadBalancer,
        wanted: Callable[[], Ruleset],
        frontends: Mapping[str, Frontend] | None = None,
    ) -> None:
        """Keep rules in `table`; `frontends` are by service id; a caller that changes one calls `mark_changed`."""
        self.table = table
        self._wanted = wanted
        self._frontends = {} if frontends is None else frontends
        self._changed: set[str] = set()
        self._applied: Ruleset | None = None  # None: unknown, so the whole table is rewritten
        self._shown: dict[str, Frontend] = {}  # frontends as the kernel has them
        self._socket_lb = socket_lb
        self._turn = asyncio.Lock()
        self._waiting: asyncio.Task[None] | None = None
        self._runs: set[asyncio.Task[None]] = set()  # the one under way and the one that waits
        self._generation = -1  # of the kernel's rule set after our last write
        self.runs = 0  # nft processes started so far

    def mark_changed(self, service_id: str) -> None:
        """Let the next write include this service's frontend."""
        self._changed.add(service_id)

    async def apply(self) -> None:
        """Return when the kernel holds what was wanted at the time of the call, or something newer.

        Raises: FirewallFailure; then the table may be older than wanted, never half-written.
        A cancelled caller does not stop the others' change.
        """
        if self._waiting is None or self._waiting.done():  # one that was cut off before its turn is nobody's turn
            self._waiting = asyncio.create_task(self._run_next(), name=f"write table {self.table}")
            self._runs.add(self._waiting)
            self._waiting.add_done_callback(self._runs.discard)
        await asyncio.shield(self._waiting)

    async def rewrite(self) -> None:
        """Write the whole table, whatever is believed of its state. Raises: FirewallFailure."""
        self._applied = None
        await self.apply()

    async def remove(self) -> None:
        """Delete the table, our bridges in the guard, and the socket load balancer. Raises: FirewallFailure."""
        async with self._turn:
            await self._socket_lb.remove()
            await self._nft(render_removal(self.table, self._applied))
            self._applied = None

    async def guarded_bridges(self) -> list[str]:
        """List the bridges of all daemons in the guard. Raises: BennuError."""
        return guarded_bridges(await self._list(TABLE))

    async def remove_guard(self) -> None:
        """Delete the guard, after forwarding was switched off. Raises: FirewallFailure."""
        await self._nft(render_guard_removal())

    async def refresh_local_addresses(self) -> None:
        """Keep the socket load balancer's view of this host's addresses fresh; to be called every few seconds."""
        await self._socket_lb.refresh_local_addresses()

    def let_go(self) -> None:
        """Close all descriptors after the last change; what is in the kernel stays."""
        self._socket_lb.close()

    async def is_intact(self) -> bool:
        """Check that nobody changed the table since our last write.

        Cheap, unless somebody changed any rules: then the table is listed and counted.
        """
        async with self._turn:
            if self._applied is None:
                return False
            generation = read_generation()
            if generation == self._generation:
                return True
            if not await self._is_all_there(self._applied):
                return False
            self._generation = generation
            return True

    async def _run_next(self) -> None:
        async with self._turn:
            self._waiting = None  # from here on a change needs another turn
            ruleset = self._wanted()
            changed, self._changed = self._changed, set()
            try:
                await self._write(ruleset, {key: self._frontends.get(key) for key in changed})
            except BaseException:
                self._applied = None
                raise
            self._applied = ruleset
            self._generation = read_generation()

    async def _write(self, ruleset: Ruleset, changed: Mapping[str, Frontend | None]) -> None:
        before = self._applied
        if before is not None and before.frame == ruleset.frame:
            try:
                await self._write_change(before, ruleset, changed)
                return
            except FirewallFailure as error:  # somebody flushed the table under us
                log.warning("the table %s was not as we left it, writing it anew: %s", self.table, error)
        shown = dict(self._frontends)
        await self._socket_lb.begin_rewrite(ruleset.forwards, shown.values())
        await self._nft(render_table(self.table, ruleset, shown.values()) + render_guard_change(before, ruleset))
        self._socket_lb.complete()
        await self._socket_lb.refresh_local_addresses()
        self._shown = shown

    async def _write_change(self, before: Ruleset, ruleset: Ruleset, changed: Mapping[str, Frontend | None]) -> None:
        frontends = [(self._shown.get(key), frontend) for key, frontend in changed.items()]
        change = render_change(self.table, before, ruleset)
        change += render_frontend_changes(self.table, frontends)
        gone, came = before.forwards - ruleset.forwards, ruleset.forwards - before.forwards
        self._socket_lb.begin_change(gone, came, frontends)
        if change:
            await self._nft(change)
        self._socket_lb.complete()
        self._note(changed)

    def _note(self, changed: Mapping[str, Frontend | None]) -> None:
        for key, frontend in changed.items():
            if frontend is None:
                self._shown.pop(key, None)
            else:
                self._shown[key] = frontend

    async def _nft(self, script: str) -> None:
        self.runs += 1
        done = await run(["nft", "-f", "-"], timeout_s=NFT_TIMEOUT_S, stdin=script.encode())
        if done.exit_code != 0:
            raise FirewallFailure(f"nftables refused a change: {done.stderr.decode(errors='replace').strip()[:500]}")

    async def _is_all_there(self, ruleset: Ruleset) -> bool:
        if count_listing(await self._list(self.table)) != count_ruleset(ruleset, self._shown.values()):
            return False
        names = [bridge.name for bridge in ruleset.bridges]
        return ruleset.guard is None or is_in_force(ruleset.guard, names, await self._list(TABLE))

    async def _list(self, table: str) -> bytes:
        """List a table as JSON; b"" if there is none."""
        done = await run(["nft", "-j", "list", "table", "inet", table], timeout_s=NFT_TIMEOUT_S)
        return b"" if done.exit_code != 0 else done.stdout


def count_listing(listing: bytes) -> tuple[int, int]:
    """Count rules and elements of maps and sets in what `nft -j list table` prints."""
    items = msgspec.json.decode(listing or b"{}").get("nftables", [])
    rules = sum(1 for item in items if "rule" in item)
    return rules, sum(len(item[kind].get("elem", ())) for item in items for kind in ("map", "set") if kind in item)


def count_ruleset(ruleset: Ruleset, frontends: Iterable[Frontend] = ()) -> tuple[int, int]:
    """Count rules and elements of maps and sets that a ruleset and frontends render to."""
    hooks = ("type ", "policy ")  # a chain's first line is no rule where it says where the kernel hooks it
    rules = sum(1 for lines in chains_of(ruleset).values() for line in lines if not line.startswith(hooks))
    entries = [entry for frontend in frontends for entry in verdict_entries(frontend).values()]
    elements = len(ruleset.forwards) + len(ruleset.open_ports) + len(entries)
    return rules + sum(len(one.rules) for one in entries), elements


def read_generation() -> int:
    """Read the kernel's ruleset generation (NFT_MSG_GETGEN), which grows with every transaction; -1 if it cannot."""
    header = struct.pack("=IHHII", 20, NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN, NLM_F_REQUEST, 1, 0)
    try:
        with contextlib.closing(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)) as sock:
            sock.settimeout(1)
            sock.send(header + struct.pack(">BBH", 0, 0, 0))
            answer = sock.recv(4096)
    except OSError:
        return -1
    return parse_generation(answer)


def parse_generation(answer: bytes) -> int:
    """Parse the generation in a netlink answer; -1 if it has none."""
    if len(answer) < 28 or struct.unpack_from("=H", answer, 4)[0] != NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN:
        return -1
    position = 20
    while position + 8 <= len(answer):
        length, kind = struct.unpack_from("=HH", answer, position)
        if kind & 0x3FFF == NFTA_GEN_ID:
            return int(struct.unpack_from(">I", answer, position + 4)[0])
        position += max(4, length + 3 & ~3)
    return -1
