"""Builds of images: the graph of a Dockerfile, run by an executor of our own, cached by content."""
