"""Speaks with registries: the OCI distribution API with Docker's logins, fallbacks, and words for what goes wrong.

Each request is made within bennud, so that no login and no token is ever seen on a command line or in a file.
"""
