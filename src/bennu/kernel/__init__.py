"""What Linux offers and Python's library has not, or only halfway: calls of libc, inotify, pidfds, /proc.

`confined/` does not use it: its helper begins with nothing but its own package, so that it can shut itself in before
it touches anything, and has the few calls it needs in `confined/calls.py`. The programs that are run by their path
(`build/source_world.py`, `build/steps/world.py`) use nothing but the standard library for the same reason.
"""
