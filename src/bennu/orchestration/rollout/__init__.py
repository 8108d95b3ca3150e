"""The way from one spec to the next: rolling, canary, blue/green, and a person's commands."""
