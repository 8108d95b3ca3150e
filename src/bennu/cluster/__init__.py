"""Services on this node: the manager's loop over the stored state, and the agent that runs the tasks."""

from bennu.cluster.cluster import Cluster, open_cluster
from bennu.cluster.nodes import HostNode

__all__ = ["Cluster", "HostNode", "open_cluster"]
