"""A world with its cast: the laws, the metrics, the manager, and an agent for each node."""

from __future__ import annotations

from bennu.orchestration.model.nouns import Node, NodeId
from bennu.simulate.agent import SimulatedAgent
from bennu.simulate.laws import Laws
from bennu.simulate.manager import SimulatedManager
from bennu.simulate.rollout_metrics import SimulatedMetrics
from bennu.simulate.world import World


class Play(World):
    """A world in which things happen. It begins without nodes."""

    agents: dict[NodeId, SimulatedAgent]
    manager: SimulatedManager
    laws: Laws

    def __init__(self, seed: int, *, verbose: bool = False) -> None:
        super().__init__(seed, verbose=verbose)
        self.agents = {}
        self.laws = Laws(self)
        self.manager = SimulatedManager(self, self.laws, SimulatedMetrics(self))

    def add_node(self, node: Node, *, noise: float = 0.0) -> None:
        """Add a node, whose agent loses, doubles or delays messages with the chance `noise`."""
        self.nodes[node.id] = node
        self.agents[node.id] = SimulatedAgent(self, self.laws, node.id, noise=noise)
        self.manager.node_set.put_node(node)

    def remove_node(self, node_id: NodeId) -> None:
        """Remove a node and its agent for good, as a person does."""
        self.agents.pop(node_id).is_gone = True
        self.manager.forget_node(node_id)
