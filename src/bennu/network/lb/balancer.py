"""Keeps the frontends of services on this host: virtual addresses, published ports, and the backends behind them.

The wanted state is in memory, by service, and on disk, so that the next daemon's rules begin with it. A change is first
`put` in memory, then `write` stores it and applies it to the kernel; changes put meanwhile share one nftables
transaction. A virtual address is on disk before anybody is told of it, and is released only when nothing in the kernel
answers for it any more.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from typing import Final

import msgspec
from pyroute2.netlink.exceptions import NetlinkError

from bennu.network.dns.names import ServiceNames
from bennu.network.frontends import Frontend, FrontendAddress, drop_conflicting_ports
from bennu.network.ipam.catalogue import Catalogue
from bennu.network.lb.service_ports import ServicePorts
from bennu.network.model import Network
from bennu.network.namespaces import netlink
from bennu.network.namespaces.netns import in_own_thread
from bennu.network.nat.conntrack import forget_udp_flows, forget_udp_flows_to, forget_unanswered
from bennu.network.nat.nft import Firewall
from bennu.network.nat.port_allocator import PortAllocator
from bennu.store import Delete, Put, Store, Transaction, aside

PREFIX: Final = "network-services/"
log = logging.getLogger(__name__)


class Balancer:
    """`load` first. `frontends` is by service id; only `put` and `drop` change it."""

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        firewall: Firewall,
        ports: PortAllocator,
        frontends: dict[str, Frontend],
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._firewall = firewall
        self.frontends = frontends
        self.names = ServiceNames()
        self._ports = ServicePorts(ports)
        self._owners: dict[str, str] = {}  # task → service
        self._answering: set[tuple[str, str]] = set()  # (bridge, virtual address) that answers ARP
        self._unsaved: set[str] = set()
        # Since the last write: frontend addresses given up, IPv4 addresses of backends that left, new UDP ports.
        self._retired: list[FrontendAddress] = []
        self._left: set[str] = set()
        self._opened: set[int] = set()

    async def load(self) -> None:
        """Read the frontends of the last daemon and count their virtual addresses as allocated."""
        frontends = await aside.load(self._store, PREFIX, msgspec.json.Decoder(Frontend).decode)
        for frontend in drop_conflicting_ports(frontends):
            kept = tuple(address for address in frontend.addresses if self._is_valid(address))
            self._enter(msgspec.structs.replace(frontend, addresses=kept))

    def allocate_ports(self) -> None:
        """Allocate the host ports of the loaded frontends, after containers have theirs."""
        for frontend in self.frontends.values():
            self._ports.set(frontend.service_id, frontend.ports)

    def close_sockets(self) -> None:
        """Stop proxying; what is in the kernel stays."""
        self._ports.close()

    def _is_valid(self, address: FrontendAddress) -> bool:
        """Check that the network still exists and has the address, and count it as allocated."""
        return self._catalogue.get(address.network_id) is not None and (
            not address.vip or self._catalogue.reserve_address(address.network_id, address.vip)
        )

    # --- asking -------------------------------------------------------------------------------------------------

    def get(self, service_id: str) -> Frontend:
        """Return the frontend of a service, an empty one if it shows nothing."""
        return self.frontends.get(service_id) or Frontend(service_id=service_id)

    def service_of(self, owner: str) -> str:
        """Return the id of the service whose connections a task accepts; "" for none."""
        return self._owners.get(owner, "")

    def vips_on(self, network: Network) -> list[str]:
        """List the virtual addresses that the network's bridge must have; from now on they count as set."""
        found = [vip for frontend in self.frontends.values() if (vip := frontend.vip_on(network.id))]
        self._answering |= {(network.bridge, vip) for vip in found}
        return found

    def vips_answering(self, network: Network) -> list[str]:
        """List the virtual addresses that the network's bridge has by now."""
        found = [vip for frontend in self.frontends.values() if (vip := frontend.vip_on(network.id))]
        return [vip for vip in found if (network.bridge, vip) in self._answering]

    # --- virtual addresses --------------------------------------------------------------------------------------

    async def reserve(self, service_id: str, network_ids: Iterable[str]) -> dict[str, str]:
        """Allocate a virtual address of the service on each network that has none yet; return all, by network id.

        Durable when this returns. Raises: BennuError (NoFreeAddress, Unavailable); then nothing has changed.
        """
        frontend, wanted = self.get(service_id), list(network_ids)
        found = {key: vip for key in wanted if (vip := frontend.vip_on(key))}
        missing = [self._catalogue.find(key) for key in wanted if key not in found]
        if missing:
            allocated = dict(
                zip((network.id for network in missing), self._catalogue.allocate_addresses(missing), strict=True)
            )
            others = tuple(address for address in frontend.addresses if address.network_id not in allocated)
            added = tuple(
                FrontendAddress(network_id=net.id, bridge=net.bridge, vip=allocated[net.id]) for net in missing
            )
            self.put(msgspec.structs.replace(frontend, addresses=(*others, *added)))
            try:
                await self._save([service_id])
            except BaseException:
                self.put(msgspec.structs.replace(self.get(service_id), addresses=frontend.addresses))
                raise
            found |= allocated
        return found

    # --- changing -----------------------------------------------------------------------------------------------

    def put(self, frontend: Frontend) -> bool:
        """Replace a frontend, in memory; `write` makes it true. False if it is the same as before."""
        before = self.get(frontend.service_id)
        if frontend == before:
            return False
        self._note_change(before, frontend)
        self._enter(frontend)
        self._mark_changed(frontend.service_id)
        return True

    def drop(self, service_id: str) -> bool:
        """Remove a service's frontend, in memory; `write` makes it true. False if there was none."""
        before = self.frontends.pop(service_id, None)
        if before is None:
            return False
        self._note_change(before, Frontend(service_id=service_id))
        self.names.drop(service_id)
        self._mark_changed(service_id)
        return True

    def _mark_changed(self, service_id: str) -> None:
        self._unsaved.add(service_id)
        self._firewall.mark_changed(service_id)

    def _enter(self, frontend: Frontend) -> None:
        self.frontends[frontend.service_id] = frontend
        self._owners |= {backend.owner: frontend.service_id for backend in frontend.backends}
        self.names.put(frontend)

    def _note_change(self, before: Frontend, after: Frontend) -> None:
        stay = {backend.owner for backend in after.backends}
        for backend in before.backends:
            if backend.owner not in stay:
                self._owners.pop(backend.owner, None)
                self._left |= backend.ips()
        self._retired += [
            address for address in before.addresses if address.vip and address.vip != after.vip_on(address.network_id)
        ]
        self._ports.set(after.service_id, after.ports)
        self._opened |= {port for proto, port in set(after.ports) - set(before.ports) if proto == "udp"}

    async def write(self, *service_ids: str) -> None:
        """Store and apply what was put for these services; then new connections go only to their backends.

        Raises: BennuError; then the next write applies it.
        """
        await self._save(service_ids)
        retired, self._retired = self._retired, []
        left, self._left = self._left, set()
        opened, self._opened = self._opened, set()
        try:
            # The bridge has an address only while its rules are there; without them it would be the host itself.
            await self._set_answering(retired, netlink.remove_virtual_address)
            await self._firewall.apply()
        except BaseException:
            self._retired += retired
            self._left |= left
            self._opened |= opened
            raise
        await self._set_answering(self._silent(service_ids), netlink.add_virtual_address)
        for address in retired:
            self._catalogue.release_address(address.network_id, address.vip)
        if left:
            await asyncio.to_thread(forget_unanswered, left)
        if opened:
            await asyncio.to_thread(forget_udp_flows, opened)

    async def forget_flows(self, ips: Collection[str]) -> None:
        """Let UDP clients of these backends go to others from their next datagram on (deletes conntrack entries)."""
        await asyncio.to_thread(forget_udp_flows_to, ips)

    async def _save(self, service_ids: Iterable[str]) -> None:
        writes: list[Put | Delete] = []
        for service_id in self._unsaved.intersection(service_ids):
            frontend = self.frontends.get(service_id)
            key = PREFIX + service_id
            writes.append(Delete(key) if frontend is None else Put(key, msgspec.json.encode(frontend)))
        if not writes:
            return
        self._unsaved.difference_update(service_ids)
        try:
            await self._store.commit(Transaction(writes))
        except BaseException:
            self._unsaved.update(service_ids)
            raise

    def _silent(self, service_ids: Iterable[str]) -> list[FrontendAddress]:
        """List the frontend addresses whose virtual address no bridge has yet."""
        addresses = [address for key in service_ids for address in self.get(key).addresses if address.vip]
        return [address for address in addresses if (address.bridge, address.vip) not in self._answering]

    async def _set_answering(self, addresses: Iterable[FrontendAddress], change: Callable[[str, str], None]) -> None:
        wanted = [(address.bridge, address.vip) for address in addresses if address.vip]
        if not wanted:
            return

        def work() -> None:
            for bridge, vip in wanted:
                change(bridge, vip)

        try:
            await in_own_thread(work)
        except (OSError, NetlinkError) as error:  # the bridge is gone; it gets them when it is repaired
            log.warning("virtual addresses of services cannot be changed: %s", error)
        if change is netlink.add_virtual_address:
            self._answering |= set(wanted)
        else:
            self._answering -= set(wanted)
