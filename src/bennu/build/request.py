"""What a build is asked for, what its client lends to it, and what comes of it: the seam between entrances and builder.

An entrance (a session of BuildKit's, or the classic endpoint) makes a `SolveRequest` and implements `BuildInputs`; the
builder does the rest and tells `Progress` of it.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from bennu.build.dockerfile.parse import ParsedDockerfile
from bennu.build.graph import GraphNode, LocalSource, Location, StepLimit
from bennu.build.snapshots import StepSnapshot
from bennu.errors import BennuError
from bennu.images.pulling import Step
from bennu.images.registry.logins import Auth
from bennu.model import HostConfig

CONTEXT: Final = "context"
DOCKERFILE: Final = "dockerfile"


@dataclass(frozen=True, slots=True)
class SolveRequest:
    """One build, whoever asked for it.

    contexts: named contexts as the client wrote them: `docker-image://REF`, `local:NAME`, a URL, `input:NAME`.
    solved: of those that are `input:NAME`, by NAME, what another build gave.
    context_url: of a context that the builder is to fetch; "" = the client's own.
    """

    filename: str = "Dockerfile"
    target: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    platform: str = ""  # as the client wrote it; "" = this host's
    no_cache: bool = False
    no_cache_filter: tuple[str, ...] = ()  # names of stages; they run even if their results are known
    pull: bool = False
    network: str = "default"  # as the client wrote it
    allow_host_network: bool = False  # also where only a RUN asks for this host's network
    extra_hosts: tuple[str, ...] = ()
    shm_size: int = 0
    ulimits: tuple[StepLimit, ...] = ()
    cgroup_parent: str = ""
    limits: HostConfig = field(default_factory=HostConfig)  # memory and processors of each step
    cache_from: tuple[str, ...] = ()
    contexts: Mapping[str, str] = field(default_factory=dict)
    solved: "Mapping[str, Solved]" = field(default_factory=dict)
    squash: bool = False
    context_url: str = ""
    hostname: str = ""


@dataclass(frozen=True, slots=True)
class ContextTree:
    """A folder that a client has sent: ours to read, and nobody changes it while the build runs."""

    folder: Path
    state: str = ""  # names its contents: what had the same name was the same; "": nobody knows


class BuildInputs(Protocol):
    """What a client lends to its build. Called in the event loop, also several at once."""

    async def read_files(self, context: str, names: Sequence[str]) -> Mapping[str, bytes]:
        """Read small files of a context ("context", "dockerfile" or a named one); what is not there is left out.

        Raises: BennuError when the client cannot give them.
        """
        ...

    async def tree(self, source: LocalSource) -> ContextTree:
        """Bring a context here, or what the source asks for of it; kept until the build ends. Raises: BennuError."""
        ...

    async def secret(self, id: str) -> bytes | None:
        """Fetch a secret; None: the client has none of this name."""
        ...

    def ssh(self, id: str) -> AbstractAsyncContextManager[Path | None]:
        """Lend an agent as a socket for the block; None: the client has none of this name."""
        ...

    async def credentials(self, domain: str) -> Auth:
        """Answer the login for a registry; an empty one if there is none."""
        ...

    def tell_plan(self, dockerfile: ParsedDockerfile, last: GraphNode) -> None:
        """Hear what will be run, before anything of it is. Must not wait."""
        ...

    def tell_pull(self, step: Step) -> None:
        """Hear how far a pull of a base image is, in more detail than progress has it. Must not wait."""
        ...


@dataclass(frozen=True, slots=True)
class Solved:
    """The result of a build: a root filesystem, and the configuration an image of it has.

    config: an image's configuration without `rootfs.diff_ids`, which are known when the layers have been packed.
    """

    snapshot: StepSnapshot
    config: Mapping[str, Any]
    platform: str  # "linux/amd64"
    parent: str = ""  # id of the image that the last stage began from
    created_ns: int | None = None  # the time that all of it is to have; None: when it was made


class BuildStepFailed(BennuError):
    """A build came to an end at one of its steps, or at a line of its Dockerfile.

    code: of a command that is the reason. source: name and text of the Dockerfile that `location` is of.
    """

    def __init__(
        self,
        message: str,
        *,
        code: int | None = None,
        location: Location | None = None,
        source: tuple[str, bytes] = ("", b""),
        vertex: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.location = location
        self.source = source
        self.vertex = vertex  # the digest of the one that failed
