"""What every container of this host shares: the adapters, the journal, the folders, the owner of background tasks."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bennu.beneath import entry_of
from bennu.engine.background import Background
from bennu.engine.deaths import Deaths
from bennu.engine.events import Journal
from bennu.engine.execs import Execs
from bennu.engine.file_watch import Writes
from bennu.engine.index import ContainerIndex
from bennu.engine.probes import ProbePlaces
from bennu.images import Images
from bennu.network import Networks
from bennu.runtime import Runtime
from bennu.runtime.hostfacts import HostFacts
from bennu.store import Store
from bennu.volumes import Volumes

if TYPE_CHECKING:
    from bennu.engine.container import Container


Draining = AbstractAsyncContextManager[None]


class PreStop:
    """What is entered before a container gets its stop signal, and left when it has ended, or the stop has failed.

    Whoever lets connections end registers here: the engine is open before there is a cluster. A kill does not ask.
    """

    def __init__(self) -> None:
        self._hook: Callable[[Container], Draining | None] = lambda container: None

    def register(self, hook: Callable[["Container"], Draining | None]) -> None:
        """`hook` answers None of a container that nobody holds."""
        self._hook = hook

    def of(self, container: "Container") -> Draining | None:
        """None: nobody holds it."""
        return self._hook(container)


@dataclass(frozen=True, slots=True)
class Resolving:
    """How names are resolved in containers that do not say it themselves. Empty: as the host does."""

    servers: Sequence[str] = ()
    search: Sequence[str] = ()
    options: Sequence[str] = ()


@dataclass(slots=True, kw_only=True)
class EngineContext:
    """Complete as it is made; only counters change."""

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
    index: ContainerIndex
    execs: Execs
    tally: Counter[str]  # what metrics count since this daemon started
    probe_places: ProbePlaces
    default_stop_timeout_s: int = 10
    resolving: Resolving = field(default_factory=Resolving)
    linkers: dict[str, set[str]] = field(default_factory=dict)  # container → who runs and has a legacy link to it
    ending: bool = False  # the daemon shuts its containers down: no policy restarts any
    writes: Writes = field(default_factory=Writes)
    pre_stop: PreStop = field(default_factory=PreStop)

    def folder(self, container_id: str) -> Path:
        """The durable folder of one container: writable layer, log, hosts files."""
        return entry_of(self.data_root / "containers", container_id)

    def log_path(self, container_id: str) -> Path:
        return self.folder(container_id) / f"{container_id}-json.log"
