"""Keeps file descriptors together that are handed out and closed together."""

import os


class Descriptors:
    """Closes its descriptors in the end, except those given away."""

    def __init__(self) -> None:
        self.all: list[int] = []

    def __enter__(self) -> "Descriptors":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, descriptor: int) -> int:
        self.all.append(descriptor)
        return descriptor

    def add_pipe(self, writers: "Descriptors", *, readers_are_theirs: bool = False) -> int:
        """Open a pipe; our end is here and does not block, the other end is in `writers`."""
        read, write = os.pipe()
        mine, other = (write, read) if readers_are_theirs else (read, write)
        os.set_blocking(mine, False)
        writers.add(other)
        return self.add(mine)

    def give_away(self, *descriptors: int) -> None:
        self.all = [one for one in self.all if one not in descriptors]

    def close(self) -> None:
        for descriptor in self.all:
            os.close(descriptor)
        self.all = []
