"""Does one step of a build on given layers: runs its command, or copies its files. Knows no graph's order, no cache.

Nothing here opens a file of a build's as root of this host: commands run in a world of their own (`world.py`), files
are the confined helper's.
"""
