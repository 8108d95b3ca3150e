"""Connects clients to a container's standard streams, and tells its conmon of terminals."""

import asyncio
import contextlib
import os

from bennu.kernel.descriptor_io import DescriptorWriter
from bennu.runtime.attach import AttachStream, connect_attach
from bennu.runtime.bundle import Bundles
from bennu.runtime.failures import NotAlive
from bennu.runtime.stdin import drop_keeper, open_stdin


class ContainerStreams:
    """Connects to the standard streams of containers, by their ids."""

    def __init__(self, bundles: Bundles) -> None:
        self._bundles = bundles
        self._telling = asyncio.Lock()

    async def attach(self, container_id: str) -> AttachStream:
        """Connect to its streams; between `create` and `start` nothing is missed. Raises: NotAlive."""
        bundle, facts = self._bundles.find(container_id)
        try:
            sock = await connect_attach(bundle.root)
        except OSError as error:
            raise NotAlive(f"container {container_id} is not running") from error
        writer: DescriptorWriter | None = None
        if facts.tty:
            writer = DescriptorWriter(sock.fileno(), 8192, owned=False) if facts.stdin else None
        elif facts.stdin:
            with contextlib.suppress(OSError):  # it closed its standard input
                writer = open_stdin(bundle.stdin)

        def end_stdin() -> None:
            if facts.stdin_once and not facts.tty:
                with self._bundles.held_conmon(container_id) as conmon:
                    if conmon >= 0:
                        drop_keeper(conmon, facts.keeper_fd)

        return AttachStream(sock, writer, end_stdin)

    async def resize(self, container_id: str, height: int, width: int) -> None:
        """Set the size of its terminal; without one nothing happens. Raises: NotAlive."""
        _, facts = self._bundles.find(container_id)
        if facts.tty:
            await self._tell_conmon(container_id, f"1 {height} {width}")

    async def _tell_conmon(self, container_id: str, message: str) -> None:
        async with self._telling:
            try:
                control = os.open(self._bundles.of(container_id).control, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                raise NotAlive(f"container {container_id} is not running") from error
            try:
                os.write(control, f"{message}\n".encode())
            finally:
                os.close(control)
            # conmon takes the first of two messages twice if it reads them together.
            await asyncio.sleep(0.01)
