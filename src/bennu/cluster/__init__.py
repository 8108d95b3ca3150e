"""Services made real: the manager's loop over the stored state, and the agent of this node."""

from bennu.cluster.cluster import Cluster, open_cluster
from bennu.cluster.nodes import HostNode

__all__ = ["Cluster", "HostNode", "open_cluster"]
