"""Removal of a network that containers which have just ended may still be on."""

import asyncio
import contextlib
from pathlib import Path
from typing import Final

from bennu.engine.container import Container
from bennu.engine.engine import Engine
from bennu.errors import Forbidden, NotFound

TAKEN_DOWN_S: Final = 3.0


async def remove_network(engine: Engine, ref: str) -> None:
    """Remove a network; wait for containers on it whose process has ended but that are not taken down yet.

    A client that has seen the last output of a container may remove its network before we have seen the end.
    Raises: BennuError.
    """
    networks = engine.services.networks
    try:
        await networks.remove(ref)
    except Forbidden:
        ending = [one for one in _users(engine, ref) if _has_ended(one)]
        if not ending:
            raise
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TAKEN_DOWN_S):
                for container in ending:
                    await _taken_down(container)
        await networks.remove(ref)


def _users(engine: Engine, ref: str) -> list[Container]:
    networks, found = engine.services.networks, []
    for container_id in networks.endpoints_of(networks.find(ref)):
        with contextlib.suppress(NotFound):
            found.append(engine.find(container_id))
    return found


def _has_ended(container: Container) -> bool:
    """Tell whether the first process of a container is gone, or nobody has collected it yet."""
    try:
        stat = Path(f"/proc/{container.record.pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


async def _taken_down(container: Container) -> None:
    await container.exited.wait()
    async with container.lock:  # whoever has noted the end holds it until what the container held is given back
        return
