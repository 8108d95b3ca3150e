"""Places for builds: for each, a sandbox on a network like a container's, and a control group.

A place is on no record. The leftovers of a killed daemon's places are cleared like everything else without a record:
namespace and addresses when the networks open, control groups in `clear`.
"""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from bennu.build.builder import Builder
from bennu.build.place import BuildPlace
from bennu.build.steps.exec_step import StepRunner
from bennu.engine.context import EngineContext
from bennu.engine.links import JOIN
from bennu.engine.record import new_id
from bennu.engine.sandbox import host_gateways, joined_namespace
from bennu.errors import BennuError
from bennu.model import HostConfig
from bennu.network import EndpointRequest, Network, read_resolv_conf, render_hosts, render_resolv_conf
from bennu.network.dns.files import ResolvConfRequest
from bennu.runtime.container_defaults import DEFAULT_GROUP

log = logging.getLogger(__name__)
DEFAULT_NETWORK: Final = "bridge"
NO_NETWORK: Final = "none"


class Places:
    """The build places of this host; see `BuildPlaces`. Control group names begin with a mark of this daemon."""

    def __init__(self, services: EngineContext) -> None:
        self._services = services
        tag = hashlib.sha256(str(services.data_root.absolute()).encode()).hexdigest()[:8]
        self._mark = f"bennu-build-{tag}-"

    @contextlib.asynccontextmanager
    async def open(self, network: str, extra_hosts: Sequence[str]) -> AsyncIterator[BuildPlace]:
        place_id = new_id()
        group = f"{self._parent()}/{self._mark}{place_id}"
        try:
            if network.startswith(JOIN):
                yield self._joined_place(group, network, extra_hosts)
            elif (found := self._find(network)).driver == "host":
                yield self._host_place(group, extra_hosts)
            else:
                yield await self._own_place(place_id, group, found, extra_hosts)
        finally:
            await asyncio.shield(self._give_back(place_id, group))

    def _find(self, network: str) -> Network:
        """Find a network; an empty name and `default` mean the default network. Raises: NotFound, InvalidParameter."""
        name = DEFAULT_NETWORK if network in ("", "default") else network
        networks = self._services.networks
        return networks.find(NO_NETWORK if networks.is_switched_off(name) else name)

    def check(self, network: str) -> None:
        if network.startswith(JOIN):
            joined_namespace(self._services, "network", network)
        else:
            self._find(network)

    def hosts(self, extra_hosts: Sequence[str]) -> tuple[tuple[str, str], ...]:
        lines = (line.split() for line in _extra_lines(self._services, extra_hosts).splitlines())
        return tuple((name, address) for address, *names in lines for name in names)

    async def _give_back(self, place_id: str, group: str) -> None:
        await self._services.networks.close_sandbox(place_id)
        await self._clear_group(group)

    async def clear(self) -> None:
        for parent in {"", self._parent()}:
            tops = self._services.runtime.cgroups.folders(parent or "/")
            found = (folder.name for top in tops for folder in top.iterdir())
            for name in {name for name in found if name.startswith(self._mark)}:
                await self._clear_group(f"{parent}/{name}")

    def _parent(self) -> str:
        """Answer the control group above those of builds: none of its own, unless bennud was told of one."""
        parent = self._services.settings.containers.cgroup_parent
        return "" if parent == DEFAULT_GROUP else parent

    async def _clear_group(self, group: str) -> None:
        try:
            await self._services.runtime.cgroups.clear(group)
        except BennuError as error:  # the next daemon tries again
            log.warning("%s", error)

    # --- the three kinds ------------------------------------------------------------------------------------------

    async def _own_place(self, place_id: str, group: str, network: Network, extra_hosts: Sequence[str]) -> BuildPlace:
        """Open a place of its own on the network.

        Steps without a network still get a place with one, because their builder fetches the input of the steps.
        """
        services, usual = self._services, self._services.resolving
        connected = network.driver != "null"
        request = EndpointRequest(
            network=network.id if connected else DEFAULT_NETWORK,
            container_name=f"build-{place_id[:12]}",
            hostname=place_id[:12],
        )
        sandbox = await services.networks.open_sandbox(place_id, [request], [], dns=usual.servers)
        resolv_conf = render_resolv_conf(
            read_resolv_conf(),
            ResolvConfRequest(
                servers=usual.servers,
                search=usual.search,
                options=usual.options,
                embedded=sandbox.has_embedded_dns,
                ipv6=any(endpoint.ipv6_address for endpoint in sandbox.endpoints),
            ),
        )
        hosts = render_hosts("", extra_hosts=extra_hosts, host_gateways=host_gateways(services))
        return self._place(group, sandbox.netns, hosts, resolv_conf, connected=connected)

    def _host_place(self, group: str, extra_hosts: Sequence[str]) -> BuildPlace:
        hosts = Path("/etc/hosts").read_text() + _extra_lines(self._services, extra_hosts)
        return self._place(group, "", hosts, read_resolv_conf())

    def _joined_place(self, group: str, network: str, extra_hosts: Sequence[str]) -> BuildPlace:
        netns = joined_namespace(self._services, "network", network)
        if not netns:
            return self._host_place(group, extra_hosts)
        while network.startswith(JOIN):  # the files are those of whoever has the network
            donor = self._services.index.find(network.removeprefix(JOIN))
            network = donor.record.host_config.network_mode
        folder = self._services.folder(donor.id)
        hosts = (folder / "hosts").read_text() + _extra_lines(self._services, extra_hosts)
        return self._place(group, netns, hosts, (folder / "resolv.conf").read_text())

    def _place(self, group: str, network: str, hosts: str, resolv_conf: str, *, connected: bool = True) -> BuildPlace:
        facts, defaults = self._services.host_facts, self._services.settings.containers
        cgroupns = defaults.cgroupns_of(HostConfig(), cgroup_v2=facts.cgroup_v2)
        return BuildPlace(network, connected, hosts, resolv_conf, group, cgroupns)


def make_builder(services: EngineContext) -> Builder:
    steps = StepRunner(
        services.runtime.oci, services.runtime.cgroups, services.host_facts, services.settings.containers
    )
    root, places = services.data_root / "build", Places(services)
    return Builder(root, services.store, services.images, places, steps, services.boot_id)


def _extra_lines(services: EngineContext, extra_hosts: Sequence[str]) -> str:
    """Render the lines that `extra_hosts` adds to an existing hosts file. Raises: InvalidParameter."""
    bare = render_hosts("")
    return render_hosts("", extra_hosts=extra_hosts, host_gateways=host_gateways(services)).removeprefix(bare)
