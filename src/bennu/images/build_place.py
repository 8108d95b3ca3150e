"""What the builder needs to be given of networks, control groups and confinement; the engine gives it.

A Protocol of its own, so that `images` does not import the engine.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class BuildPlace:
    """Where the steps of one build run; it exists from the build's begin to its end."""

    network: str  # a network namespace's file; "": the host's
    connected: bool  # False: only the builder is on the network, its steps are on none
    address: str  # of the steps' host name; "": none
    hosts: str  # text of /etc/hosts
    resolv_conf: str  # text of /etc/resolv.conf
    group: str  # a control group's path: its steps are in it, one after the other
    cgroupns: str  # of the steps: "host" or "private"
    # How a default container is confined, in terms of an OCI configuration; `guard_step.py` says which.
    confinement: Mapping[str, Any] = field(default_factory=dict)


class BuildPlaces(Protocol):
    """Gives a place to each build. Knows nothing of Dockerfiles."""

    def open(self, network: str, extra_hosts: Sequence[str]) -> AbstractAsyncContextManager[BuildPlace]:
        """Make a place for one build; `network` is as the client wrote it. Nothing of it is left after the block.

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
