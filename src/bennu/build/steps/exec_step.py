"""Runs the command of one RUN."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bennu.build.graph import Exec, GraphNode
from bennu.build.steps.trees import Layers
from bennu.errors import BennuError
from bennu.images.build_place import BuildPlace
from bennu.model import HostConfig

Log = Callable[[int, bytes], None]  # stream (1 or 2) and what was written to it; already limited as BuildKit limits it


class Lender(Protocol):
    """What a client lends to the steps of its build; `BuildInputs` is one."""

    async def secret(self, id: str) -> bytes | None: ...

    def ssh(self, id: str) -> AbstractAsyncContextManager[Path | None]:
        """Give a socket of the client's agent while the block lasts; None: the client has none of that id."""
        ...


class StepFailed(BennuError):
    """A RUN did not end well.

    The message is BuildKit's: `process "/bin/sh -c false" did not complete successfully: exit code: 1`.
    """

    def __init__(self, message: str, exit_code: int | None) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # None: it was not started


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRequest:
    """One RUN, with all that it needs at hand."""

    step: Exec
    base: Layers
    into: Path  # a folder, empty; afterwards it holds `diff`, the new layer
    sources: Mapping[GraphNode, Layers]  # what its mounts come from
    place: BuildPlace
    lender: Lender
    limits: HostConfig  # memory, cpu, shm_size, ulimits of the build
    proxies: Sequence[str] = ()


class StepRunner:
    """Runs commands of builds on this host. One for a daemon; the caches of `--mount=type=cache` are its own."""

    async def run(self, request: ExecRequest, log: Log) -> None:
        """Run it to its end. A cancellation ends it at once; then, as after a failure, `into` is the caller's to remove.

        Raises: StepFailed, BennuError.
        """
        raise NotImplementedError
