"""Services on this host's networks: their virtual addresses, their published ports, who takes their connections.

What should hold is in memory, service by service, and on disk, so that a new daemon's rules begin with it. A change is
put (at once, in memory) and then written: to disk, then to the kernel, where all that changed meanwhile is one
transaction. Virtual addresses are on disk before anybody is told of them, and are lent again only when the kernel has
nothing left that answers for them.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from typing import Final

import msgspec
from pyroute2.netlink.exceptions import NetlinkError

from bennu.network import links
from bennu.network.catalogue import Catalogue
from bennu.network.conntrack import forget_udp_flows, forget_udp_flows_to, forget_unanswered
from bennu.network.fronts import Front, Place, without_contradictions
from bennu.network.held import HeldPorts
from bennu.network.model import Network
from bennu.network.names import ServiceNames
from bennu.network.netns import in_own_thread
from bennu.network.nft import Firewall
from bennu.network.service_ports import ServicePorts
from bennu.store import Delete, Put, Store, Transaction, aside

PREFIX: Final = "network-services/"
log = logging.getLogger(__name__)


class Balancer:
    """`load` first. `fronts` is what is shown, by service; only `put` and `drop` change it."""

    def __init__(
        self, store: Store, catalogue: Catalogue, firewall: Firewall, held: HeldPorts, fronts: dict[str, Front]
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._firewall = firewall
        self.fronts = fronts
        self.names = ServiceNames()
        self._ports = ServicePorts(held)
        self._owners: dict[str, str] = {}  # task → service
        self._answering: set[tuple[str, str]] = set()  # bridge and virtual address
        self._unsaved: set[str] = set()
        # Since the last write: places given up, addresses of tasks that left, ports by UDP that are new.
        self._retired: list[Place] = []
        self._left: set[str] = set()
        self._opened: set[int] = set()

    async def load(self) -> None:
        """What the last daemon showed; its virtual addresses are lent."""
        fronts = await aside.load(self._store, PREFIX, msgspec.json.Decoder(Front).decode)
        for front in without_contradictions(fronts):
            held = tuple(place for place in front.places if self._holds(place))
            self._enter(msgspec.structs.replace(front, places=held))

    def hold_ports(self) -> None:
        """Those of the fronts that were loaded; containers had theirs first."""
        for front in self.fronts.values():
            self._ports.set(front.service_id, front.ports)

    def close_sockets(self) -> None:
        """Carry nothing any more; what is in the kernel stays."""
        self._ports.close()

    def _holds(self, place: Place) -> bool:
        """Whether the network is still there, and still has that address."""
        return self._catalogue.get(place.network_id) is not None and (
            not place.vip or self._catalogue.hold_address(place.network_id, place.vip)
        )

    # --- asking -------------------------------------------------------------------------------------------------

    def get(self, service_id: str) -> Front:
        return self.fronts.get(service_id) or Front(service_id=service_id)

    def service_of(self, owner: str) -> str:
        """The service a task takes connections of; "" for one that takes none."""
        return self._owners.get(owner, "")

    def vips_on(self, network: Network) -> list[str]:
        """The virtual addresses that the network's bridge has to answer for."""
        found = [vip for front in self.fronts.values() if (vip := front.vip_on(network.id))]
        self._answering |= {(network.bridge, vip) for vip in found}
        return found

    def vips_answering(self, network: Network) -> list[str]:
        """Those of them that it answers for by now."""
        found = [vip for front in self.fronts.values() if (vip := front.vip_on(network.id))]
        return [vip for vip in found if (network.bridge, vip) in self._answering]

    # --- virtual addresses --------------------------------------------------------------------------------------

    async def reserve(self, service_id: str, network_ids: Iterable[str]) -> dict[str, str]:
        """A virtual address of the service on each of these networks, kept or new; durable when this returns.

        Raises: BennuError (NoFreeAddress, Unavailable); then nothing has changed.
        """
        front, wanted = self.get(service_id), list(network_ids)
        found = {key: vip for key in wanted if (vip := front.vip_on(key))}
        missing = [self._catalogue.find(key) for key in wanted if key not in found]
        if missing:
            lent = dict(zip((network.id for network in missing), self._catalogue.lend_addresses(missing), strict=True))
            others = tuple(place for place in front.places if place.network_id not in lent)
            added = tuple(Place(network_id=net.id, bridge=net.bridge, vip=lent[net.id]) for net in missing)
            self.put(msgspec.structs.replace(front, places=(*others, *added)))
            try:
                await self._save([service_id])
            except BaseException:
                self.put(msgspec.structs.replace(self.get(service_id), places=front.places))
                raise
            found |= lent
        return found

    # --- changing -----------------------------------------------------------------------------------------------

    def put(self, front: Front) -> bool:
        """Show this from the next `write` on; False if it is nothing new."""
        before = self.get(front.service_id)
        if front == before:
            return False
        self._note_change(before, front)
        self._enter(front)
        self._touch(front.service_id)
        return True

    def drop(self, service_id: str) -> bool:
        """Show nothing of it from the next `write` on; False if nothing was shown."""
        before = self.fronts.pop(service_id, None)
        if before is None:
            return False
        self._note_change(before, Front(service_id=service_id))
        self.names.drop(service_id)
        self._touch(service_id)
        return True

    def _touch(self, service_id: str) -> None:
        self._unsaved.add(service_id)
        self._firewall.touch(service_id)

    def _enter(self, front: Front) -> None:
        self.fronts[front.service_id] = front
        self._owners |= {backend.owner: front.service_id for backend in front.backends}
        self.names.put(front)

    def _note_change(self, before: Front, after: Front) -> None:
        stay = {backend.owner for backend in after.backends}
        for backend in before.backends:
            if backend.owner not in stay:
                self._owners.pop(backend.owner, None)
                self._left |= backend.ips()
        self._retired += [place for place in before.places if place.vip and place.vip != after.vip_on(place.network_id)]
        self._ports.set(after.service_id, after.ports)
        self._opened |= {port for proto, port in set(after.ports) - set(before.ports) if proto == "udp"}

    async def write(self, *service_ids: str) -> None:
        """When this returns, what the caller put is on disk and the kernel sends new connections only there.

        Raises: BennuError; then the kernel has it with the next change.
        """
        await self._save(service_ids)
        retired, self._retired = self._retired, []
        left, self._left = self._left, set()
        opened, self._opened = self._opened, set()
        try:
            # An address is answered for only while its rules are there, or the host itself would be called by it.
            await self._set_answering(retired, links.remove_virtual_address)
            await self._firewall.apply()
        except BaseException:
            self._retired += retired
            self._left |= left
            self._opened |= opened
            raise
        await self._set_answering(self._silent(service_ids), links.add_virtual_address)
        for place in retired:
            self._catalogue.give_back_address(place.network_id, place.vip)
        if left:
            await asyncio.to_thread(forget_unanswered, left)
        if opened:
            await asyncio.to_thread(forget_udp_flows, opened)

    async def forget_flows(self, ips: Collection[str]) -> None:
        """Clients by UDP of these tasks go to other ones from their next datagram on."""
        await asyncio.to_thread(forget_udp_flows_to, ips)

    async def _save(self, service_ids: Iterable[str]) -> None:
        writes: list[Put | Delete] = []
        for service_id in self._unsaved.intersection(service_ids):
            front = self.fronts.get(service_id)
            key = PREFIX + service_id
            writes.append(Delete(key) if front is None else Put(key, msgspec.json.encode(front)))
        if not writes:
            return
        self._unsaved.difference_update(service_ids)
        try:
            await self._store.commit(Transaction(writes))
        except BaseException:
            self._unsaved.update(service_ids)
            raise

    def _silent(self, service_ids: Iterable[str]) -> list[Place]:
        """Places whose virtual address nobody answers for yet."""
        places = [place for key in service_ids for place in self.get(key).places if place.vip]
        return [place for place in places if (place.bridge, place.vip) not in self._answering]

    async def _set_answering(self, places: Iterable[Place], change: Callable[[str, str], None]) -> None:
        wanted = [(place.bridge, place.vip) for place in places if place.vip]
        if not wanted:
            return

        def work() -> None:
            for bridge, vip in wanted:
                change(bridge, vip)

        try:
            await in_own_thread(work)
        except (OSError, NetlinkError) as error:  # the bridge is gone; it gets them when it is made anew
            log.warning("virtual addresses of services cannot be changed: %s", error)
        if change is links.add_virtual_address:
            self._answering |= set(wanted)
        else:
            self._answering -= set(wanted)
