"""The questions that networks ask the cluster. Apart from them, because the cluster implements the Protocol."""

from collections.abc import Sequence
from typing import Protocol

from bennu.network.model import Network


class ClusterHooks(Protocol):
    """Implemented by the cluster; `NoCluster` answers on a node that is in no swarm."""

    def pools(self) -> Sequence[tuple[str, int]]:
        """Return (range, prefix length) pairs for the subnets of new overlay networks; () outside a swarm."""
        ...

    def may_attach(self, container_id: str, network: Network) -> bool:
        """Check that a container may join a network of the swarm that is not attachable: its task is of the swarm."""
        ...

    async def before_removal(self, network: Network) -> None:
        """Wait until nothing of the swarm uses the network. Raises: BennuError when something does."""
        ...


class NoCluster:
    """The answers of a node that is in no swarm."""

    def pools(self) -> Sequence[tuple[str, int]]:
        return ()

    def may_attach(self, container_id: str, network: Network) -> bool:
        return True

    async def before_removal(self, network: Network) -> None:
        """Wait for nothing: no swarm uses the network."""
