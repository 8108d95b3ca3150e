"""Compose files as stacks: read, filled in, merged, and turned into what the API is asked for."""
