"""Builds: a Dockerfile becomes a graph of nodes, and the graph an image.

`dockerfile/`, `graph.py` and `plan*.py` are pure: text, arguments and the configurations of base images in; nodes, the
image's configuration and its history out. What runs a graph asks them and decides nothing of that itself.
"""
