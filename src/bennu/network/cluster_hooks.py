"""What the networks ask a swarm, if this node is in one."""

from collections.abc import Sequence
from typing import Protocol

from bennu.network.model import Network


class ClusterHooks(Protocol):
    """What a swarm has to say about networks."""

    def pools(self) -> Sequence[tuple[str, int]]:
        """(range, prefix length) of new overlay networks; () outside a swarm."""
        ...

    def may_attach(self, container_id: str, network: Network) -> bool:
        """Whether a container may be on a network of the swarm."""
        ...

    async def before_removal(self, network: Network) -> None:
        """Return when nothing of the swarm uses it. Raises: BennuError when something does."""
        ...


class NoCluster:
    def pools(self) -> Sequence[tuple[str, int]]:
        return ()

    def may_attach(self, container_id: str, network: Network) -> bool:
        return True

    async def before_removal(self, network: Network) -> None:
        """Nobody is asked."""
