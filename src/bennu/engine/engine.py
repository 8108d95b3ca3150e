"""The containers of one host: their index, their birth and the way to each of them."""

import asyncio
import builtins
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from bennu.confined.client import HELPER
from bennu.engine.background import Background
from bennu.engine.build_places import make_builder
from bennu.engine.container import Container
from bennu.engine.copies import Copies
from bennu.engine.creation import complete, create_container
from bennu.engine.deaths import KEEP_LIVES, Deaths
from bennu.engine.events import Journal, event
from bennu.engine.execs import Execs
from bennu.engine.names import random_name
from bennu.engine.orphans import check_data_is_there, clear_orphans, unknown_sandboxes
from bennu.engine.record import new_id
from bennu.engine.recovery import finish_errands, finish_start, read_boot_id, read_records, readopt
from bennu.engine.remains import Remains, read_remains
from bennu.engine.removal import remove_container
from bennu.engine.services import Resolving, Services
from bennu.engine.validate import validate_name
from bennu.errors import Conflict, InvalidParameter, NotFound
from bennu.host import prepare
from bennu.images import Images
from bennu.lifecycle.death import Asker
from bennu.model import ContainerConfig, HostConfig, NetworkingConfig
from bennu.network import Networks, NetworkSettings
from bennu.runtime import Runtime
from bennu.runtime.hostfacts import read_host_facts
from bennu.store import Delete, Put, Store, aside, open_sqlite
from bennu.volumes import Volume, Volumes

NAME_TRIES: Final = 6
SHUTDOWN_S: Final = 15.0

log = logging.getLogger(__name__)


class Engine:
    """One host's engine. Made by `open_engine`; not thread-safe, lives in one event loop."""

    def __init__(self, services: Services) -> None:
        self.services = services
        services.index = self
        self.execs = services.execs = Execs(services)
        services.builder = make_builder(services)
        self._containers: dict[str, Container] = {}
        self._names: dict[str, Container] = {}
        self._reserved: set[str] = set()
        self._aside: dict[str, Remains] = {}  # those whose record is set aside, by id
        self._wanted: builtins.list[Container] = []  # of those taken up: who is to be started by his policy
        self._left: builtins.list[str] = []  # and who is to be removed

    # --- finding ------------------------------------------------------------------------------------------------

    def find(self, ref: str) -> Container:
        """By full id, name (with or without `/`), or unique prefix of the id, in this order.

        Raises: NotFound; InvalidParameter when empty or ambiguous.
        """
        if not ref:
            raise InvalidParameter('invalid name or ID supplied: ""')
        found = self._containers.get(ref) or self._names.get(ref.removeprefix("/"))
        if found:
            return found
        matches = [container for key, container in self._containers.items() if key.startswith(ref)]
        if not matches:
            raise NotFound(f"No such container: {ref}")
        if len(matches) > 1:
            raise InvalidParameter(f"multiple IDs found with provided prefix: {ref}")
        return matches[0]

    def list(self) -> list[Container]:
        """All containers, newest first."""
        return sorted(self._containers.values(), key=lambda container: -container.record.created_ns)

    # --- birth and death ----------------------------------------------------------------------------------------

    async def create(
        self, name: str | None, config: ContainerConfig, host: HostConfig, networking: NetworkingConfig | None
    ) -> tuple[str, builtins.list[str]]:
        """Create a container; answers its id and warnings. Raises: BennuError with Docker's words."""
        if name is not None:
            name = validate_name(name)
        container_id = new_id()
        image = self.services.images.find(config.image)
        warnings = complete(config, host, image.config, container_id, self.services.runtime.oci_name)
        name = self._reserve(name, container_id)
        try:
            with self.services.images.in_use(image):
                self.add(await create_container(self.services, container_id, name, image, config, host, networking))
        finally:
            self._reserved.discard(name)
        return container_id, warnings

    def _reserve(self, name: str | None, container_id: str) -> str:
        if name is not None:
            self._check_name_free(name)
        else:
            tries = (random_name() for _ in range(NAME_TRIES))
            name = next((draw for draw in tries if not self._taken(draw)), container_id[:12])
        self._reserved.add(name)
        return name

    def _taken(self, name: str) -> bool:
        return name in self._reserved or bool(self._holder(name))

    def _holder(self, name: str) -> str:
        """The id of the container that has this name; "" if none has."""
        if name in self._names:
            return self._names[name].id
        return next((container_id for container_id, remains in self._aside.items() if remains.name == name), "")

    def _check_name_free(self, name: str) -> None:
        if self._taken(name):
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{self._holder(name)}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )

    def add(self, container: Container) -> None:
        """Put it in the index."""
        self._containers[container.id] = container
        self._names[container.record.name] = container

    def forget(self, container: Container) -> None:
        """Take it out of the index; it is gone from the disk."""
        self._containers.pop(container.id, None)
        self._names.pop(container.record.name, None)
        self.execs.forget_container(container.id)

    def leave_aside(self, container: Container, remains: Remains) -> None:
        """Take it out of the index; what it has stays its own."""
        self.forget(container)
        self._aside[container.id] = remains

    async def open(self, *, whole: bool) -> None:
        """Bring the host's state and the containers' back; returns when all that live are adopted.

        What is asked for on their records, and is not done yet, is begun by `begin`.
        `whole`: the store is proven to know all there is. Else images that it does not know are put aside.
        """
        services = self.services
        await aside.put_back(services.store)
        await services.journal.open()
        records = await read_records(services)
        self._aside = await read_remains(services)
        for record in records:
            self.add(Container(services, record))
        valid = {r.id: r.sandbox for r in records if r.sandbox is not None and r.boot_id == services.boot_id}
        valid |= unknown_sandboxes(services, {*self._containers, *self._aside})
        valid |= {key: remains.sandbox for key, remains in self._aside.items() if remains.sandbox is not None}
        services.images.users = self._users_of_image
        await services.images.open(whole=whole)
        services.volumes.users = self._users_of_volume
        services.volumes.running_users = self._running_users_of_volume
        services.volumes.commit = self._commit_volume
        await services.volumes.open()
        await services.networks.open(valid)
        await clear_orphans(services, {*self._containers, *self._aside})
        containers = self.list()[::-1]
        self._wanted = await readopt(services, containers)
        self._left = finish_errands(services, self.list()[::-1])
        services.tasks.create_task(services.builder.open(), name="clear what builds left")
        services.tasks.create_task(services.deaths.keep_pruned(self._containers), name="prune certificates")

    def begin(self) -> None:
        """Remove and start what the records say: of a daemon that is ready to answer."""
        services = self.services
        start = finish_start(services, self._left, self._wanted)
        services.tasks.create_task(start, name="start containers by policy")

    def _users_of_image(self, image_id: str) -> builtins.list[tuple[str, bool]]:
        users = [
            (container.id, container.record.running)
            for container in self._containers.values()
            if container.record.image_id == image_id
        ]
        return users + [(key, True) for key, remains in self._aside.items() if remains.image_id == image_id]

    def _users_of_volume(self, name: str) -> builtins.list[str]:
        users = [
            container.id
            for container in self._containers.values()
            if any(point.type == "volume" and point.name == name for point in container.record.mounts)
        ]
        return users + [key for key, remains in self._aside.items() if name in remains.volumes]

    def _running_users_of_volume(self, name: str) -> builtins.list[str]:
        """A container whose record is set aside may run."""
        users = self._users_of_volume(name)
        return [user for user in users if user in self._aside or self._containers[user].record.pid]

    async def _commit_volume(self, write: Put | Delete, action: str, volume: Volume) -> None:
        told = event("volume", action, volume.name, {"driver": volume.driver})
        await self.services.journal.commit([write], [told], adds=action == "create")

    async def shut_down(self) -> None:
        """Stop all containers at the same time, each with its own signal and grace period; start none any more.

        Takes at most 15 s, or the longest grace period and 5 s; what then still runs lives on.
        """
        services = self.services
        services.ending = True
        running = [container for container in self._containers.values() if container.record.running]
        by = Asker.daemon("shutdown")
        limit_s = max([SHUTDOWN_S, *((container.grace_s() or SHUTDOWN_S) + 5 for container in running)])
        try:
            async with asyncio.timeout(limit_s):
                await asyncio.gather(*(container.shut_down(by) for container in running), return_exceptions=True)
        except TimeoutError:
            log.warning("some containers did not end within %d s and live on", limit_s)

    async def auto_remove(self, container_id: str) -> None:
        await remove_container(
            self.services, self.find(container_id), Asker.daemon("auto-remove"), force=True, volumes=True
        )

    async def remove(self, ref: str, by: Asker, *, force: bool = False, volumes: bool = False) -> None:
        await remove_container(self.services, self.find(ref), by, force=force, volumes=volumes)

    async def rename(self, ref: str, new_name: str) -> None:
        """Raises: InvalidParameter, Conflict with Docker's words."""
        container = self.find(ref)
        old_name = container.record.name
        if not new_name:
            raise InvalidParameter("Neither old nor new names may be empty")
        new_name = new_name.removeprefix("/")
        if new_name == old_name:
            raise InvalidParameter("Renaming a container with the same name as its current name")
        prefix = "Error when allocating new name: "
        try:
            new_name = validate_name(new_name)
            self._check_name_free(new_name)
        except InvalidParameter as error:
            raise InvalidParameter(prefix + str(error)) from None
        except Conflict as error:
            raise Conflict(prefix + str(error)) from None
        self._reserved.add(new_name)
        try:
            # The sandbox is part of the record, so its names change before that is written.
            self.services.networks.rename_sandbox(container.id, new_name)
            try:
                await container.change("rename", {"oldName": f"/{old_name}"}, name=new_name)
            except BaseException:
                self.services.networks.rename_sandbox(container.id, old_name)
                raise
            for name in [name for name, holder in self._names.items() if holder is container]:
                del self._names[name]  # more than one if two clients rename at the same time
            self._names[new_name] = container
        finally:
            self._reserved.discard(new_name)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Where an engine lives and how its host is set up."""

    data_root: Path
    exec_root: Path
    network: NetworkSettings = field(default_factory=NetworkSettings)
    resolving: Resolving = field(default_factory=Resolving)
    oci_runtime: str = "crun"
    default_stop_timeout_s: int = 10
    keep_deaths: int = KEEP_LIVES  # death certificates of each container
    given_files: tuple[int, int] | None = None  # see `HostFacts.given_files`


async def make_services(
    options: EngineOptions, store: Store, networks: Networks, tasks: Background, oci_runtime: str
) -> Services:
    runtime = Runtime(options.exec_root, oci=oci_runtime)
    host_facts = await asyncio.to_thread(read_host_facts, runtime.cgroups)
    return Services(
        data_root=options.data_root,
        exec_root=options.exec_root,
        boot_id=read_boot_id(),
        store=store,
        journal=Journal(store),
        deaths=Deaths(store, options.keep_deaths),
        images=Images(options.data_root / "images", store),
        networks=networks,
        volumes=Volumes(options.data_root / "volumes", store),
        runtime=runtime,
        host_facts=replace(host_facts, given_files=options.given_files),
        tasks=tasks,
        default_stop_timeout_s=options.default_stop_timeout_s,
        resolving=options.resolving,
    )


@contextlib.asynccontextmanager
async def open_engine(options: EngineOptions) -> AsyncIterator[Engine]:
    """Take up where the former daemon left off; on leaving, containers live on.

    The caller holds the lock on both roots. Raises: BennuError when the host cannot carry an engine.
    """
    for root in (options.data_root, options.exec_root):
        root.mkdir(mode=0o710, parents=True, exist_ok=True)
    check_data_is_there(options.data_root, options.exec_root)
    HELPER.start()  # it gets ready while the store is opened
    async with (
        open_sqlite(options.data_root / "state.db") as store,
        contextlib.AsyncExitStack() as at_last,
        Background() as tasks,
    ):
        at_last.callback(HELPER.close)
        networks = Networks(store, options.data_root, options.exec_root, options.network)
        at_last.callback(networks.let_go)
        prepared = await prepare(options.data_root, options.oci_runtime, bridge=networks.bridge)
        for finding in prepared.findings:
            log.warning("%s: %s%s", finding.name, finding.text, f" (cure: {finding.cure})" if finding.cure else "")
        services = await make_services(options, store, networks, tasks, prepared.oci_runtime)
        services.networks.on_event = services.journal.publish
        engine = Engine(services)
        copies = Copies(store, options.data_root)
        await copies.open(whole=store.whole)
        at_last.push_async_callback(copies.close)
        await engine.open(whole=store.whole)
        tasks.create_task(copies.keep(), name="keep copies of the records")
        try:
            yield engine
        finally:
            living = any(container.record.running for container in engine.list())
            await services.networks.close(remove=services.ending and not living)
