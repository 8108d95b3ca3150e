"""The slots of a service: their kind, their restarts, and which of their tasks are outdated."""
