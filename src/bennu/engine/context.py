"""The services all containers of this host share: adapters, journal, folders, and the owner of background tasks."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from bennu.beneath import entry_of
from bennu.engine.background import Background
from bennu.engine.deaths import Deaths
from bennu.engine.events import Journal
from bennu.engine.execs import Execs
from bennu.engine.probes import ProbePlaces
from bennu.engine.record import Record
from bennu.engine.settings import EngineSettings
from bennu.images import Images
from bennu.lifecycle.death import Cause
from bennu.network import Networks
from bennu.plugins import Plugins
from bennu.runtime import Runtime
from bennu.runtime.hostfacts import HostFacts
from bennu.store import Store
from bennu.volumes import Volumes

MAX_ACCOUNTS: Final = 128
MAX_ACCOUNTS_LENGTH: Final = 64 << 10  # characters of both files; longer ones are read at each start

Draining = AbstractAsyncContextManager[None]


class Neighbour(Protocol):
    """The part of a container that other containers may use."""

    @property
    def id(self) -> str: ...

    @property
    def record(self) -> Record: ...

    @property
    def lock(self) -> asyncio.Lock:
        """The lock that protects the record and everything that depends on it; every writer holds it."""
        ...


class Neighbours(Protocol):
    """The part of the index that one container may use."""

    def find(self, ref: str) -> Neighbour:
        """Find another container. Raises: NotFound, InvalidParameter."""
        ...

    def forget(self, container_id: str) -> None:
        """Drop a container that is gone from the disk."""
        ...


class Stoppable(Protocol):
    """The part of a container that a pre-stop hook may use."""

    @property
    def id(self) -> str: ...

    @property
    def record(self) -> Record: ...

    @property
    def exited(self) -> asyncio.Event:
        """Set while it has no process."""
        ...


class PreStop:
    """Pre-stop hook: entered before a container gets its stop signal, left when it has ended or the stop has failed.

    The load balancer registers its hook later, since the engine is open before there is a cluster. A kill does not use
    the hook.
    """

    def __init__(self) -> None:
        self._hook: Callable[[Stoppable], Draining | None] = lambda container: None

    def register(self, hook: Callable[[Stoppable], Draining | None]) -> None:
        """Register the hook; it answers None for a container that no load balancer holds."""
        self._hook = hook

    def of(self, container: Stoppable) -> Draining | None:
        """Return the draining of a container; None: no load balancer holds it."""
        return self._hook(container)


class Accounts:
    """Contents of `/etc/passwd` and `/etc/group` in the images that containers were started from lately.

    By image and working directory, and only where the image has that directory. The oldest go first.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], Mapping[str, str]] = OrderedDict()

    def get(self, image_id: str, working_dir: str) -> Mapping[str, str] | None:
        return self._known.get((image_id, working_dir))

    def put(self, image_id: str, working_dir: str, texts: Mapping[str, str]) -> None:
        if sum(map(len, texts.values())) > MAX_ACCOUNTS_LENGTH:
            return
        self._known[image_id, working_dir] = texts
        while len(self._known) > MAX_ACCOUNTS:
            self._known.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Resolving:
    """Default DNS options for containers without any of their own. Empty: the host's are used."""

    servers: Sequence[str] = ()
    search: Sequence[str] = ()
    options: Sequence[str] = ()
    host_gateways: Sequence[str] = ()  # what `host-gateway` stands for; empty: the default bridge's addresses


@dataclass(slots=True)
class Tally:
    """What metrics count since this daemon started."""

    deaths: Counter[Cause] = field(default_factory=Counter)
    restarts: int = 0  # by policy


@dataclass(slots=True, kw_only=True)
class EngineContext:
    """The shared services of the containers. Complete when made; settings, tally, caches and `ending` change later."""

    data_root: Path
    exec_root: Path
    boot_id: str
    store: Store
    journal: Journal
    deaths: Deaths
    images: Images
    networks: Networks
    volumes: Volumes
    runtime: Runtime
    tasks: Background
    host_facts: HostFacts
    index: Neighbours
    execs: Execs
    probe_places: ProbePlaces
    engine_id: str
    default_stop_timeout_s: int = 10
    resolving: Resolving = field(default_factory=Resolving)
    settings: EngineSettings = field(default_factory=EngineSettings)
    linked_from: dict[str, set[str]] = field(default_factory=dict)  # container → who runs and has a legacy link to it
    ending: bool = False  # the daemon shuts its containers down: no policy restarts any
    accounts: Accounts = field(default_factory=Accounts)
    plugins: Plugins = field(default_factory=Plugins)
    pre_stop: PreStop = field(default_factory=PreStop)
    tally: Tally = field(default_factory=Tally)

    def folder(self, container_id: str) -> Path:
        """Return the durable folder of one container: writable layer, log, hosts files."""
        return entry_of(self.data_root / "containers", container_id)

    def log_path(self, container_id: str) -> Path:
        return self.folder(container_id) / f"{container_id}-json.log"
