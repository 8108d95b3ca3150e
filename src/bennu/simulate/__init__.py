"""The shipped orchestration core on a virtual clock, with nodes that fail, managers that die and reports that get lost.

Nothing in here is used in production, and nothing of the core is replaced: `Manager` is a shell like the cluster's. It
reads a snapshot, asks `reconcile` and `place`, and carries the plan out action by action. The command: `__main__`.
"""
