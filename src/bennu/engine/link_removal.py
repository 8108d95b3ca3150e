"""Removal of one legacy link of a container: `docker rm --link OWNER/ALIAS`."""

import asyncio
from pathlib import Path

from bennu.engine.engine import Engine
from bennu.engine.links import port_links, without_link
from bennu.errors import BennuError
from bennu.network.dns.files import forget_host


async def remove_link(engine: Engine, name: str) -> None:
    """Remove the link from the owner's record, hosts file and open ports; both containers go on as they are.

    Raises: NotFound; BennuError for a name without an owner.
    """
    engine.find(name)
    owner_name, _, alias = name.removeprefix("/").rpartition("/")
    if not owner_name:
        raise BennuError("Conflict, cannot remove the default link name of the container")
    owner, services = engine.find(owner_name), engine.services
    async with owner.lock:
        await owner.commit(without_link(owner.record, alias), [])
        if owner.record.running:
            await services.networks.set_links(owner.id, port_links(services, owner.record))
            await asyncio.to_thread(_forget, services.folder(owner.id) / "hosts", alias)


def _forget(hosts: Path, alias: str) -> None:
    hosts.write_text(forget_host(hosts.read_text(), alias))
