"""Load balancing at connect(): clients on this host reach a container without translation of their packets.

The nftables rules of `nat/` are the law; a socket load balancer is a shortcut, which `--socket-lb=false` leaves out. It
never disagrees with the rules: what they are about to change is withdrawn before, and published after.
"""

from collections.abc import Collection, Iterable
from typing import Protocol

from bennu.network.frontends import Frontend
from bennu.network.model import PortForward


class SocketLoadBalancer(Protocol):
    """Redirects local TCP clients of published ports at connect(), in agreement with the rules.

    One change at a time: `begin_rewrite` or `begin_change`, then the rules are written, then `complete`. When the
    rules are refused there is no `complete`, and a `begin_rewrite` follows. Only the two that begin a change raise
    OSError, when a redirection cannot be withdrawn; then the rules must not change. All else that the kernel refuses
    is logged, and the rules serve.
    """

    async def begin_rewrite(self, forwards: Iterable[PortForward], frontends: Iterable[Frontend]) -> None:
        """Prepare for exactly these forwards of containers and frontends of services, whatever there was before.

        The first call loads what is needed into the kernel, and what an earlier daemon left there is gone.
        """
        ...

    def begin_change(
        self,
        gone: Collection[PortForward],
        came: Collection[PortForward],
        frontends: Iterable[tuple[Frontend | None, Frontend | None]],
    ) -> None:
        """Prepare for a change; `frontends` are (before, after), None for a service that shows nothing."""
        ...

    def complete(self) -> None:
        """Publish what was prepared: the rules now say the same."""
        ...

    async def refresh_local_addresses(self) -> None:
        """Read which addresses are this host's; to be called every few seconds, or they are no longer trusted."""
        ...

    async def remove(self) -> None:
        """Leave nothing in the kernel, of this daemon or an earlier one on the same roots."""
        ...

    def close(self) -> None:
        """Close all descriptors; what is in the kernel stays and works on. Idempotent."""
        ...
