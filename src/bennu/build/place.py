"""What the builder needs to be given of networks, control groups and confinement; the engine gives it.

A Protocol of its own, so that builds do not import the engine.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class BuildPlace:
    """Where one step of a build runs, or a source is fetched from; the build may use it for the next one."""

    network: str  # a network namespace's file; "": the host's
    connected: bool  # False: only the builder is on the network, its steps are on none
    hosts: str  # text of /etc/hosts
    resolv_conf: str  # text of /etc/resolv.conf
    group: str  # a control group's path: its steps have groups below it
    cgroupns: str  # of the steps: "host" or "private"


class BuildPlaces(Protocol):
    """Gives a place to each build. Knows nothing of Dockerfiles."""

    def open(self, network: str, extra_hosts: Sequence[str]) -> AbstractAsyncContextManager[BuildPlace]:
        """Make a place; `network` is as the client wrote it. Nothing of it is left after the block.

        Raises: BennuError.
        """
        ...

    def check(self, network: str) -> None:
        """Find out whether there is such a network. Raises: NotFound, InvalidParameter."""
        ...

    def hosts(self, extra_hosts: Sequence[str]) -> tuple[tuple[str, str], ...]:
        """List names and addresses that a client adds as `name:address`; host-gateway is an address of this host.

        Raises: InvalidParameter.
        """
        ...

    async def clear(self) -> None:
        """Remove what is left of places of a former daemon. To be called while no place is open."""
        ...
