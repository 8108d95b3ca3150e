"""A node's sign of life: a lease kept by its agent. When the lease ends, the node's `alive` row goes with it."""

import asyncio
import logging
from typing import Final

from bennu.cluster.state import ClusterState
from bennu.errors import Unavailable
from bennu.store import NO_LEASE, LeaseLost

MISSED_HEARTBEATS: Final = 3
RETRY_S: Final = 1.0
log = logging.getLogger(__name__)


class Heartbeat:
    """The life of a node's lease: `begin` it, then `run` it.

    After three periods of silence the store lets the node go.
    """

    def __init__(self, state: ClusterState, node_id: str) -> None:
        self._state = state
        self._node_id = node_id
        self._lease = NO_LEASE
        self._period_ns = 0  # of the lease

    async def begin(self) -> None:
        """Take the node's lease, before any part of the manager judges the node."""
        try:
            self._period_ns = self._state.require_cluster().heartbeat_ns
            self._lease = await self._state.hold_alive(self._node_id, MISSED_HEARTBEATS * self._period_ns)
        except Unavailable as error:
            log.error("node %s cannot show that it is alive: %s", self._node_id, error)
            self._lease = NO_LEASE

    async def run(self) -> None:
        """Keep the node's lease alive until cancelled."""
        while True:
            await asyncio.sleep(self._period_ns / 1e9 if self._lease else RETRY_S)
            try:
                self._state.keep_alive(self._lease)
            except LeaseLost:
                log.warning("node %s was not heard for too long; it shows itself again", self._node_id)
                await self.begin()
            if self._period_ns != self._state.require_cluster().heartbeat_ns:
                await self.begin()
