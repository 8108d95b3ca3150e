"""Repairs the kernel's network state: what others remove or switch off is back within seconds.

Rules are checked when the kernel's ruleset generation has changed, interfaces and addresses when the kernel notified of
a change. Only a few small files are read every time: forwarding, the sysctls of each bridge, and whether each sandbox
still has its namespace.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from pyroute2.netlink.exceptions import NetlinkError

from bennu.errors import BennuError
from bennu.network import default_bridge
from bennu.network.ipam.catalogue import Catalogue
from bennu.network.lb.balancer import Balancer
from bennu.network.model import Network
from bennu.network.namespaces import bridges, interface_sysctls, netlink
from bennu.network.namespaces.link_monitor import LinkChanges, LinkEvent, LinkMonitor
from bennu.network.namespaces.netns import in_own_thread
from bennu.network.nat.ip_forwarding import IpForwarding
from bennu.network.nat.nft import Firewall
from bennu.network.sandboxes import Sandboxes

RECONCILE_EVERY_S: Final = 2.0
log = logging.getLogger(__name__)


class NetworkReconciler:
    """Call `enable_forwarding` when the set of networks has changed; `run` does the rest."""

    def __init__(
        self,
        catalogue: Catalogue,
        balancer: Balancer,
        firewall: Firewall,
        sandboxes: Sandboxes,
        forwarding: IpForwarding,
        changing: asyncio.Lock,
        set_up_bridge: Callable[[Network], Awaitable[None]],
    ) -> None:
        self._catalogue = catalogue
        self._balancer = balancer
        self._firewall = firewall
        self._sandboxes = sandboxes
        self._forwarding = forwarding
        self._changing = changing  # held while the set of networks changes
        self._set_up_bridge = set_up_bridge
        self._monitor = LinkMonitor()
        self._is_unsure = False  # the last changes may not have been acted on
        self._later: list[str] = []  # interfaces to be tried again

    async def run(self) -> None:
        """Reconcile every two seconds, until cancelled. A failure is logged and tried again."""
        try:
            self._monitor.open()
        except OSError as error:
            log.warning("the kernel does not tell of interfaces, so all are looked at every time: %s", error)
        while True:
            await asyncio.sleep(RECONCILE_EVERY_S)
            try:
                await self.reconcile()
            except Exception as error:  # whatever it is: nobody else repairs the network
                foreseen = isinstance(error, BennuError | OSError | NetlinkError)
                log.warning("cannot put the network right: %s", error, exc_info=not foreseen)
                self._is_unsure = True

    def close(self) -> None:
        self._monitor.close()

    async def reconcile(self) -> None:
        """Check and repair once. Raises: BennuError, OSError, NetlinkError."""
        await self._firewall.refresh_local_addresses()
        await self._keep_forwarding()
        if not await self._firewall.is_intact():
            log.warning("the rules of table %s were changed by others; writing them anew", self._firewall.table)
            await self._firewall.rewrite()
        changes, self._is_unsure = self._monitor.read_changes(missed=self._is_unsure), False
        async with self._changing:
            bridged = [network for network in self._catalogue if network.bridge]
            found_gone = [await self._repair_bridge(network, changes) for network in bridged]
            if changes.missed or any(found_gone):
                await self._sandboxes.restore()
        self._later = await self._sandboxes.repair({*self._suspects(changes.links), *self._later})

    # --- forwarding ---------------------------------------------------------------------------------------------

    async def enable_forwarding(self) -> None:
        """Switch forwarding on for all networks. The caller holds the machine's lock.

        Raises: BennuError, OSError.
        """
        await self._forwarding.switch_on(self._families(), self._firewall.apply)

    async def _keep_forwarding(self) -> None:
        if await self._forwarding.refresh():
            await self._firewall.apply()
        if not self._forwarding.is_on(self._families()):
            log.warning("forwarding was switched off; switching it on again")
            async with default_bridge.subnet_lock():
                await self.enable_forwarding()

    def _families(self) -> list[str]:
        outward = [network for network in self._catalogue if network.bridge and not network.internal]
        ipv4 = any(network.enable_ipv4 for network in outward)
        ipv6 = any(network.enable_ipv6 for network in outward)
        return [*(["ipv4"] if ipv4 else []), *(["ipv6"] if ipv6 else [])]

    # --- interfaces ---------------------------------------------------------------------------------------------

    async def _repair_bridge(self, network: Network, changes: LinkChanges) -> bool:
        """Check a network's bridge and repair it; True if it was gone, so that no container is attached to it."""
        index = netlink.find_index(network.bridge)
        if network.foreign:
            return False
        plan = default_bridge.bridge_plan(network, self._balancer.vips_answering(network))
        event = changes.links.get(network.bridge)
        is_as_told = index is not None and (event is None or event.is_up) and index not in changes.lost_addresses
        if is_as_told and not changes.missed and not interface_sysctls.find_deviations(plan.sysctls):
            return False
        found = await in_own_thread(lambda: bridges.find_faults(plan))
        if found:
            what = ", ".join(found)
            log.warning("bridge %s of network %s: %s; putting it right", network.bridge, network.name, what)
            await self._set_up_bridge(network)
        return index is None

    def _suspects(self, events: Mapping[str, LinkEvent]) -> list[str]:
        """List the interfaces that are gone, down, or no port of a bridge of ours."""
        ours = {netlink.find_index(network.bridge) for network in self._catalogue if network.bridge}
        return [name for name, one in events.items() if not (one.is_there and one.is_up and one.master in ours)]
