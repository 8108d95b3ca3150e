"""What a plan is asked for, what it needs to know, and what it is. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bennu.build.dockerfile.failure import DockerfileError
from bennu.build.dockerfile.rules import Linter, LintWarning
from bennu.build.graph import GraphNode, Location, StepLimit


class PlanError(DockerfileError):
    """A Dockerfile that cannot be planned; what else was noticed in it may be the reason."""

    def __init__(self, error: DockerfileError, linter: Linter) -> None:
        super().__init__(str(error), error.location)
        self.warnings = tuple(dict.fromkeys(linter.warnings))


@dataclass(frozen=True, slots=True)
class SolvedContext:
    """A named context that is the result of another build: what names it, and its image's configuration, if any."""

    solved: str
    config: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """What a client asks for.

    platform: of the image; "" = this host's. It is compared, and told to steps, as `host_platform` is: `linux/amd64`.
    no_cache_stages: names of stages whose steps run always; with `no_cache` all do.
    contexts: named contexts as clients write them: `docker-image://REF`, `local:NAME`, a URL, `input:NAME`.
    excludes: of each local context ("context", named ones) the patterns of its .dockerignore.
    solved: what the contexts `input:NAME` are.
    main_context: what takes the place of the client's own context; None = the client's.
    """

    host_platform: str
    platform: str = ""
    target: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    no_cache: bool = False
    no_cache_stages: frozenset[str] = frozenset()
    network: str = "default"
    allow_host_network: bool = False  # also where only a RUN asks for it
    hosts: tuple[tuple[str, str], ...] = ()
    hostname: str = ""
    limits: tuple[StepLimit, ...] = ()
    cgroup_parent: str = ""
    shm_size: int = 0
    contexts: Mapping[str, str] = field(default_factory=dict)
    excludes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    solved: Mapping[str, SolvedContext] = field(default_factory=dict)
    main_context: GraphNode | None = None


@dataclass(frozen=True, slots=True)
class ImageNeed:
    """An image that a build stands on or takes files from; two needs of one image and platform are equal.

    written: as it stands in the Dockerfile, for messages. name: of the vertex of its metadata.
    """

    reference: str  # in full: docker.io/library/busybox:latest
    platform: str  # linux/amd64
    written: str = field(default="", compare=False)
    name: str = field(default="", compare=False)
    location: Location | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class BaseImage:
    """What was found for a need. `digest`: of the manifest it was pulled by, "" for an image of this host alone."""

    image_id: str
    config: Mapping[str, Any]  # the image's configuration as it came
    digest: str = ""


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """The graph of a build and its image's configuration; `rootfs` and the times of steps are added at the end.

    base_id: the image that the result stands on; "" = none of this host.
    """

    last: GraphNode
    config: Mapping[str, Any]
    platform: str
    base_id: str
    warnings: tuple[LintWarning, ...]
    created_ns: int | None = None  # SOURCE_DATE_EPOCH
