"""What every container of this host shares: the adapters, the journal, the folders, the owner of background tasks."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bennu.beneath import entry_of
from bennu.engine.accounts import Accounts
from bennu.engine.background import Background
from bennu.engine.deaths import Deaths
from bennu.engine.events import Journal
from bennu.engine.probes import ProbePlaces
from bennu.images import Images
from bennu.images.building import Builder
from bennu.kernel.inotify import FileWrites
from bennu.lifecycle.death import Asker
from bennu.network import Networks
from bennu.runtime import Runtime
from bennu.runtime.hostfacts import HostFacts
from bennu.store import Store
from bennu.volumes import Volumes

if TYPE_CHECKING:
    from bennu.engine.container import Container
    from bennu.engine.execs import Execs
    from bennu.engine.remains import Remains
    from bennu.engine.supervisor import Supervisor


class Index(Protocol):
    """What one container may ask about the others, and about its own leaving."""

    def find(self, ref: str) -> "Container":
        """Raises: NotFound, InvalidParameter."""
        ...

    def list(self) -> "list[Container]":
        """All, newest first."""
        ...

    def forget(self, container: "Container") -> None:
        """It is gone from the disk: drop it."""
        ...

    def leave_aside(self, container: "Container", remains: "Remains") -> None:
        """Its record is set aside: drop it, but keep for it what it has."""
        ...

    async def remove(self, ref: str, by: Asker, *, force: bool = False, volumes: bool = False) -> None:
        """As `docker rm` does. Raises: BennuError."""
        ...

    async def auto_remove(self, container_id: str) -> None:
        """Remove it with its anonymous volumes. Raises: BennuError."""
        ...


@dataclass(frozen=True, slots=True)
class Resolving:
    """How names are resolved in containers that do not say it themselves. Empty: as the host does."""

    servers: Sequence[str] = ()
    search: Sequence[str] = ()
    options: Sequence[str] = ()


@dataclass(slots=True)
class Services:
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
    default_stop_timeout_s: int = 10
    resolving: Resolving = field(default_factory=Resolving)
    tally: Counter[str] = field(default_factory=Counter)  # what metrics count since this daemon started
    linkers: dict[str, set[str]] = field(
        default_factory=dict
    )  # container → those that run and have a legacy link to it
    ending: bool = False  # the daemon shuts its containers down: no policy restarts any
    accounts: Accounts = field(default_factory=Accounts)
    writes: FileWrites = field(default_factory=FileWrites)
    probe_places: ProbePlaces = field(init=False)
    index: "Index" = field(init=False)  # set by the engine as it is made
    execs: "Execs" = field(init=False)  # likewise
    builder: Builder = field(init=False)  # likewise
    # Entered before a container gets its stop signal, left when it has ended (or the stop has failed). The cluster
    # sets it, and lets the connections of a task end here; None: nobody holds it. A kill does not ask.
    parting: Callable[["Supervisor"], AbstractAsyncContextManager[None] | None] = lambda container: None

    def __post_init__(self) -> None:
        self.probe_places = ProbePlaces(self.tally)

    def folder(self, container_id: str) -> Path:
        """The durable folder of one container: writable layer, log, hosts files."""
        return entry_of(self.data_root / "containers", container_id)

    def log_path(self, container_id: str) -> Path:
        return self.folder(container_id) / f"{container_id}-json.log"
