"""The embedded DNS at 127.0.0.11, and the files of a container that name hosts and resolvers."""
