"""The pure core of services: what has to be done next, and why. See `docs/orchestration.md`."""
