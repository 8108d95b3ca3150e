"""The shipped orchestration core on a virtual clock, with nodes that fail, managers that die and reports that get lost.

Nothing in here is used in production, and nothing of the core is replaced: `Manager` is a shell like the cluster's. It
reads a snapshot, asks `reconcile` and `place`, and carries the plan out action by action. The command: `__main__`.

`container_*` does the same for single containers and the machine of `lifecycle.life`: `ContainerDaemon` is a shell like
the engine's, which may die at any instruction; `Host` is what outlives it.
"""
