"""IP forwarding: switched on where it was off, and guarded as long as only a daemon of ours needs it."""

import logging
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Final

from bennu.errors import BennuError
from bennu.host import forwarding
from bennu.network.namespaces import netlink
from bennu.network.namespaces.netns import in_own_thread
from bennu.network.nat.forwarding_guard import ForwardingGuard

BRIDGE_FILTERS: Final = tuple(Path(f"/proc/sys/net/bridge/bridge-nf-call-{name}tables") for name in ("ip", "ip6"))
log = logging.getLogger(__name__)


class IpForwarding:
    """`guard` is the table that must be in force, None for none; only `refresh` and `switch_on` change it."""

    def __init__(self, *, is_wanted: bool = True, is_guarded: bool = True) -> None:
        """Set up. Not `is_wanted`: leave the switches alone; not `is_guarded`: make this host a router for good."""
        self._is_wanted = is_wanted
        self._is_guarded = is_guarded
        self.guard: ForwardingGuard | None = None
        self._refused: set[str] = set()

    async def refresh(self) -> bool:
        """Read the machine's state; True if `guard` changed, by other daemons, the administrator or new bridges."""
        families = forwarding.read_mark().families
        guard = None
        if families:
            guard = ForwardingGuard(
                families=tuple(sorted(families)),
                routers=tuple((family, name) for family, one in sorted(families.items()) for name in one.routers),
                bridged=tuple(await in_own_thread(netlink.list_bridges)) if _rules_see_bridged(any) else (),
            )
        self.guard, before = guard, self.guard
        return guard != before

    async def switch_on(self, families: Collection[str], enforce: Callable[[], Awaitable[None]]) -> None:
        """Switch on the families that are off, after `enforce` has put the guard in force.

        The caller holds the machine's lock. Raises: OSError, FirewallFailure; then the families are as before.
        """
        if not self._is_wanted:
            return
        if not self._is_guarded:
            families = [family for family in families if self._make_router(family)]
        claimed = forwarding.claim(families)
        for family in claimed:
            log.info(
                "%s was off and is switched on; what has nothing to do with containers is not forwarded",
                forwarding.SWITCHES[family].replace("/", "."),
            )
        if await self.refresh() or claimed:
            await enforce()
        for family in claimed:
            if not forwarding.switch_on(family):
                self._refuse(family)

    def _make_router(self, family: str) -> bool:
        """Switch a family on without guard; True if another daemon's guard holds, so that it is to be claimed."""
        if family in forwarding.read_mark().families:
            return True
        if not forwarding.is_on(family):
            log.info("%s is switched on, and stays on", forwarding.SWITCHES[family].replace("/", "."))
            if not forwarding.switch_on(family):
                self._refuse(family)
        return False

    def _refuse(self, family: str) -> None:
        self._refused.add(family)
        log.warning("it cannot be: containers reach no other host by %s, nor others their ports", family)

    def is_on(self, families: Collection[str]) -> bool:
        """Check that all families forward that are to, except those the kernel refuses to switch on."""
        return not self._is_wanted or all(
            forwarding.is_on(family) for family in families if family not in self._refused
        )


def rules_see_bridged() -> bool:
    """Check that rules see packets a bridge passes from port to port (br_netfilter), as icc=false needs."""
    return _rules_see_bridged(all)


def _rules_see_bridged(how_many: Callable[[list[bool]], bool]) -> bool:
    try:
        return how_many([knob.read_text().strip() == "1" for knob in BRIDGE_FILTERS])
    except OSError:
        return False


async def switch_off_unless_used(read_users: Callable[[], Awaitable[Collection[str]]]) -> bool:
    """Switch off what we switched on if no daemon has a bridge any more; True if so.

    `read_users` lists the bridges of all daemons. The caller holds the machine's lock.
    """
    try:
        if not forwarding.read_mark().families or any(netlink.find_index(name) for name in await read_users()):
            return False
    except BennuError as error:
        log.warning("forwarding stays on: %s", error)
        return False
    forwarding.switch_off()
    return True
