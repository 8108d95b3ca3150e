"""Where the steps of a build run: what the builder needs to be given of networks, control groups and confinement."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class BuildPlace:
    """One build's own, from its begin to its end."""

    network: str  # a network namespace's file; "": the host's
    connected: bool  # False: only the builder is on the network, its steps are on none
    address: str  # of the steps' host name; "": none
    hosts: str  # text of /etc/hosts
    resolv_conf: str  # text of /etc/resolv.conf
    group: str  # a control group's path: its steps are in it, one after the other
    # How a default container is confined, in terms of an OCI configuration; `guard_step.py` says which.
    confinement: Mapping[str, Any] = field(default_factory=dict)


class BuildPlaces(Protocol):
    """Gives a place to each build. Knows nothing of Dockerfiles."""

    def open(self, network: str, extra_hosts: Sequence[str]) -> AbstractAsyncContextManager[BuildPlace]:
        """`network` as the client wrote it. When the block is left, however, nothing of the place is left.

        Raises: BennuError.
        """
        ...

    async def clear(self) -> None:
        """Remove what is left of places of a former daemon. While no place is open."""
        ...
