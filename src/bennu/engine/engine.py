"""The containers of one host: their index, their creation and the access to each of them."""

import asyncio
import builtins
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from bennu.confined.client import HELPER
from bennu.engine.background import Background
from bennu.engine.build_front import LazyFront
from bennu.engine.build_places import make_builder
from bennu.engine.container import Container
from bennu.engine.context import EngineContext, Resolving
from bennu.engine.copies import Copies
from bennu.engine.creation import complete, create_container
from bennu.engine.deaths import KEEP_LIVES, Deaths
from bennu.engine.events import Journal, event
from bennu.engine.execs import Execs
from bennu.engine.index import ContainerIndex
from bennu.engine.mount_sources import clear_sources
from bennu.engine.orphans import check_data_is_there, clear_orphans, unknown_sandboxes
from bennu.engine.probes import ProbePlaces
from bennu.engine.record import new_id
from bennu.engine.recovery import (
    finish_pending_operations,
    finish_start,
    read_boot_id,
    read_engine_id,
    read_records,
    readopt,
)
from bennu.engine.remains import read_remains
from bennu.engine.removal import remove_container
from bennu.engine.settings import EngineSettings
from bennu.engine.validate import validate_name
from bennu.errors import Conflict, InvalidParameter
from bennu.host import prepare
from bennu.images import Images
from bennu.lifecycle.death import Requester
from bennu.model import ContainerConfig, HostConfig, NetworkingConfig
from bennu.network import Networks, NetworkSettings
from bennu.plugins import AUTHORIZATION, Plugin, Plugins
from bennu.runtime import Runtime
from bennu.runtime.hostfacts import read_host_facts
from bennu.store import Delete, Put, Store, aside, open_sqlite
from bennu.volumes import Volume, Volumes

log = logging.getLogger(__name__)


class Engine:
    """One host's engine. Made by `open_engine`; not thread-safe, lives in one event loop."""

    def __init__(self, services: EngineContext, index: ContainerIndex[Container]) -> None:
        self.services = services
        self.index = index
        self.execs = services.execs
        self.builder = make_builder(services)
        self.build_front = LazyFront(services, self.builder)
        self._wanted: builtins.list[Container] = []  # of those taken up: who is to be started by his policy
        self._left: builtins.list[Container] = []  # and who is to be removed

    # --- finding ------------------------------------------------------------------------------------------------

    def find(self, ref: str) -> Container:
        """Find a container as `ContainerIndex.find` does. Raises: NotFound, InvalidParameter."""
        return self.index.find(ref)

    def list(self) -> list[Container]:
        """List all containers, newest first."""
        return self.index.list()

    # --- birth and death ----------------------------------------------------------------------------------------

    async def create(
        self,
        name: str | None,
        config: ContainerConfig,
        host: HostConfig,
        networking: NetworkingConfig | None,
        *,
        recursive_read_only: bool = True,
    ) -> tuple[str, builtins.list[str]]:
        """Create a container; answer its id and warnings. Raises: BennuError with Docker's words.

        `recursive_read_only`: what is mounted in the source of a read-only bind mount is read-only, too.
        """
        services = self.services
        if name is not None:
            name = validate_name(name)
        container_id = new_id()
        image = services.images.find(config.image)
        warnings = complete(config, host, image.config, container_id, services.runtime.oci_name, services.settings)
        with self.index.reserved(name, container_id) as name, services.images.in_use(image):
            container = await create_container(
                services,
                container_id,
                name,
                image,
                config,
                host,
                networking,
                recursive_read_only=recursive_read_only,
            )
            self.index.add(container)
        return container_id, warnings

    async def open(self, *, whole: bool) -> None:
        """Restore the state of the host and the containers; return when all living containers are adopted.

        Operations that the records ask for and that are not done yet are begun by `begin`.
        `whole`: the store is proven to hold all records. Otherwise images that it does not know are put aside.
        """
        services = self.services
        await aside.put_back(services.store)
        await services.journal.open()
        records = await read_records(services)
        remains = await read_remains(services)
        self.index.note_aside(remains)
        for record in records:
            self.index.add(Container(services, record))
        valid = {r.id: r.sandbox for r in records if r.sandbox is not None and r.life.run.boot_id == services.boot_id}
        valid |= unknown_sandboxes(services, self.index.known)
        valid |= {key: one.sandbox for key, one in remains.items() if one.sandbox is not None}
        await services.runtime.open_logs()
        await self.builder.read()
        await services.images.open(whole=whole)
        await services.volumes.open()
        await services.networks.open(valid)
        await clear_orphans(services, self.index.known)
        await asyncio.to_thread(clear_sources, services.exec_root)
        self._wanted = await readopt(services, self.index)
        self._left = finish_pending_operations(services, self.list()[::-1])
        services.tasks.create_task(self.builder.open(), name="clear what builds left")
        services.tasks.create_task(self.builder.keep_tidy(), name="prune the build cache")
        services.tasks.create_task(services.deaths.keep_pruned(self.index.ids), name="prune certificates")

    def begin(self) -> None:
        """Begin the removals and starts that the records ask for; called once the daemon is ready to answer."""
        services = self.services
        start = finish_start(services, self._left, self._wanted)
        services.tasks.create_task(start, name="start containers by policy")

    async def shut_down(self) -> None:
        """Stop all containers at the same time, each with its own signal and grace period; start none any more.

        Takes at most the time set for it, or the longest grace period and 5 s; containers that then still run live on.
        """
        services = self.services
        services.ending = True
        running = [container for container in self.list() if container.record.running]
        by = Requester.daemon("shutdown")
        usual_s = services.settings.shutdown_timeout_s
        limit_s = max([usual_s, *((container.grace_s() or usual_s) + 5 for container in running)])
        try:
            async with asyncio.timeout(None if usual_s < 0 else limit_s):
                await asyncio.gather(*(container.shut_down(by) for container in running), return_exceptions=True)
        except TimeoutError:
            log.warning("some containers did not end within %d s and live on", limit_s)

    async def judges(self) -> builtins.list[Plugin]:
        """List the plugins that judge each request now, in their order. Raises: BennuError where one is missing."""
        names = self.services.settings.authorization_plugins
        return [await self.services.plugins.find(name, AUTHORIZATION) for name in names]

    def apply(self, settings: EngineSettings) -> None:
        """Follow other settings from now on; containers that run keep what they were started with."""
        self.services.settings = settings
        self.services.images.registries = settings.registries

    async def remove(self, ref: str, by: Requester, *, force: bool = False, volumes: bool = False) -> None:
        await remove_container(self.services, self.find(ref), by, force=force, volumes=volumes)

    async def rename(self, ref: str, new_name: str) -> None:
        """Rename a container. Raises: InvalidParameter, Conflict with Docker's words."""
        container, index = self.find(ref), self.index
        if not new_name:
            raise InvalidParameter("Neither old nor new names may be empty")
        new_name = new_name.removeprefix("/")
        if new_name == container.record.name:
            raise InvalidParameter("Renaming a container with the same name as its current name")
        prefix = "Error when allocating new name: "
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(index.reserved(validate_name(new_name), container.id))
            except InvalidParameter as error:
                raise InvalidParameter(prefix + str(error)) from None
            except Conflict as error:
                raise Conflict(prefix + str(error)) from None
            await self._rename(container, new_name)

    async def _rename(self, container: Container, new_name: str) -> None:
        networks, old_name = self.services.networks, container.record.name
        # The sandbox is part of the record, so its names change before that is written.
        networks.rename_sandbox(container.id, new_name)
        try:
            await container.change("rename", {"oldName": f"/{old_name}"}, name=new_name)
        except BaseException:
            networks.rename_sandbox(container.id, old_name)
            raise
        self.index.rename(container, new_name)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """The location of an engine and the setup of its host."""

    data_root: Path
    exec_root: Path
    network: NetworkSettings = field(default_factory=NetworkSettings)
    resolving: Resolving = field(default_factory=Resolving)
    oci_runtime: str = "crun"
    default_stop_timeout_s: int = 10
    keep_deaths: int = KEEP_LIVES  # death certificates of each container
    given_files: tuple[int, int] | None = None  # see `HostFacts.given_files`
    settings: EngineSettings = field(default_factory=EngineSettings)


@dataclass(frozen=True, slots=True)
class Foundations:
    """The base of the context, available before the host has shown that it can carry an engine."""

    store: Store
    journal: Journal
    networks: Networks
    tasks: Background


async def make_context(
    options: EngineOptions, on: Foundations, index: ContainerIndex[Container], oci_runtime: str
) -> EngineContext:
    """Make the services that all containers of this host share, complete and not yet open."""
    runtime = Runtime(options.exec_root, oci=oci_runtime)
    host_facts = await asyncio.to_thread(read_host_facts, runtime.cgroups)
    plugins = Plugins()

    async def commit_volume(write: Put | Delete, action: str, volume: Volume) -> None:
        told = event("volume", action, volume.name, {"driver": volume.driver})
        await on.journal.commit([write], [told], adds=action == "create")

    return EngineContext(
        data_root=options.data_root,
        exec_root=options.exec_root,
        boot_id=read_boot_id(),
        store=on.store,
        journal=on.journal,
        deaths=Deaths(on.store, options.keep_deaths),
        images=Images(options.data_root / "images", on.store, index, options.settings.registries),
        networks=on.networks,
        volumes=Volumes(options.data_root / "volumes", on.store, index, commit_volume, plugins),
        runtime=runtime,
        host_facts=replace(
            host_facts,
            given_files=options.given_files,
            init_binary=options.settings.init_path or host_facts.init_binary,
        ),
        tasks=on.tasks,
        index=index,
        execs=Execs(runtime, on.tasks),
        probe_places=ProbePlaces(),
        default_stop_timeout_s=options.default_stop_timeout_s,
        resolving=options.resolving,
        engine_id=await asyncio.to_thread(read_engine_id, options.data_root),
        settings=options.settings,
        plugins=plugins,
    )


@contextlib.asynccontextmanager
async def open_engine(options: EngineOptions) -> AsyncIterator[Engine]:
    """Open the engine where the former daemon left off; on leaving, containers live on.

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
        journal = Journal(store)
        networks = Networks(store, options.data_root, options.exec_root, options.network, journal.publish)
        at_last.callback(networks.let_go)
        prepared = await prepare(options.data_root, options.oci_runtime, bridge=networks.bridge)
        for finding in prepared.findings:
            log.warning("%s: %s%s", finding.name, finding.text, f" (cure: {finding.cure})" if finding.cure else "")
        foundations, index = Foundations(store, journal, networks, tasks), ContainerIndex[Container]()
        services = await make_context(options, foundations, index, prepared.oci_runtime)
        at_last.callback(services.runtime.logs.close)
        engine = Engine(services, index)
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
