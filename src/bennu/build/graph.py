"""The graph of a build: what is fetched, run and copied, each node naming the nodes it needs. Pure.

A graph is its last node. Nodes are compared by identity, because a value's hash would walk all that lies below it,
and a stage that is used twice would be walked twice; two nodes that mean the same work have the same `digest`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Final, TypeAlias

# What a node is called and where it is written does not change what it does.
NOT_IN_KEYS: Final = frozenset(("name", "location", "no_cache", "proxy_env"))


@dataclass(frozen=True, slots=True)
class Location:
    """Lines of the Dockerfile, counted from 1; both ends belong to it."""

    first: int
    last: int


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class Named:
    """What every node has: its name in the progress, its place in the Dockerfile, its platform (`linux/amd64`)."""

    name: str = ""
    location: Location | None = None
    no_cache: bool = False  # to be done even if its result is known
    platform: str = ""


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class ImageSource(Named):
    """An image that is here already: `image_id` was found before planning."""

    reference: str
    image_id: str


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class Scratch(Named):
    """The empty root."""


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class LocalSource(Named):
    """A folder that the client sends: `context`, `dockerfile` or a named context.

    `follow` are the paths that the build asks for, without the leading slash; empty means all.
    """

    context: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    follow: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class HttpSource(Named):
    """A root with one file, `filename`, that a URL answers."""

    url: str
    filename: str
    checksum: str = ""  # "sha256:…"; "" = not given
    mode: int | None = None  # None = 0600
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class GitSource(Named):
    """The work tree of a commit."""

    url: str
    ref: str = ""  # branch, tag or commit; "" = the remote's HEAD
    subdir: str = ""
    keep_git_dir: bool = False
    checksum: str = ""  # the commit, or its begin
    submodules: bool = True


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class SolvedSource(Named):
    """The root that another build gave; `solved` says which, and enters the key."""

    solved: str


class MountKind(StrEnum):
    """The types of `RUN --mount`."""

    BIND = "bind"
    CACHE = "cache"
    TMPFS = "tmpfs"
    SECRET = "secret"
    SSH = "ssh"


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class StepMount:
    """One `--mount` of a RUN.

    target: absolute; "" for a secret that is an environment variable alone, and for an agent's socket at its usual
    place (`/run/buildkit/ssh_agent.N`, which `SSH_AUTH_SOCK` names).
    source: what a bind or cache mount shows at first; None = an empty folder.
    mode, uid, gid: of a cache's folder when it is made, of a secret's file, of an agent's socket; None = not given.
    """

    kind: MountKind
    target: str
    source: "GraphNode | None" = None
    source_path: str = "/"
    read_only: bool = False  # a writable bind is thrown away after the step
    id: str = ""  # of the cache, secret or agent ("default")
    sharing: str = "shared"  # of a cache: shared, private or locked
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int = 0  # of a tmpfs in bytes; 0 = no limit of its own
    env_name: str = ""  # of a secret: the variable that holds it
    required: bool = False  # the step fails without this secret or agent


@dataclass(frozen=True, slots=True)
class StepLimit:
    """One `--ulimit`."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class Exec(Named):
    """One RUN. `env` holds the variables in force, also build arguments, as `NAME=value`.

    `proxy_env` holds the proxies of the client: steps see them, and nothing remembers them.
    """

    base: "GraphNode"
    argv: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: str  # as in the image's configuration; "" = root
    mounts: tuple[StepMount, ...] = ()
    network: str = "default"  # default, none or host
    hosts: tuple[tuple[str, str], ...] = ()  # name and address
    hostname: str = ""
    limits: tuple[StepLimit, ...] = ()
    cgroup_parent: str = ""
    shm_size: int = 0  # bytes; 0 = 64 MiB
    proxy_env: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """The words as messages tell them: `process "/bin/sh -c make" did not complete successfully`."""
        return " ".join(self.argv)


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class Copy:
    """Copy of paths of a source's root into the base.

    paths: absolute and clean. With `parents` each is `PIVOT/./PATTERN`: what PATTERN selects below PIVOT keeps its
    parent folders below the destination.
    destination: absolute; a trailing slash says that it is a folder. It is made if it is not there.
    literal: the path means one name, or the whole root ("/"). Otherwise it is a pattern (of Go's path/filepath, and
    one that selects nothing is an error), symbolic links on its way are followed, and of a folder the contents are
    copied.
    user: as in `--chown`, names are of the base; "" = 0:0. mode: `755` or `u+x,go=`; "" = as it is.
    unpack: a local tar archive, also a compressed one, is unpacked instead of copied.
    """

    source: "GraphNode"
    paths: tuple[str, ...]
    destination: str
    user: str = ""
    mode: str = ""
    exclude: tuple[str, ...] = ()
    parents: bool = False
    unpack: bool = False
    literal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Mkdir:
    """Make a folder and its parents; one that is there stays as it is."""

    path: str
    mode: int = 0o755
    user: str = ""  # names are of the base; "" = 0:0
    created_ns: int | None = None  # its modification time; None = now


@dataclass(frozen=True, slots=True, kw_only=True)
class Mkfile:
    """Make a file."""

    path: str
    data: bytes = field(repr=False)
    mode: int = 0o644
    user: str = ""
    created_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    """Remove what a path or pattern names."""

    path: str
    allow_missing: bool = False
    wildcard: bool = False


FileAction: TypeAlias = Copy | Mkdir | Mkfile | Remove


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class Files(Named):
    """Changes of files without a process; all of it is one layer."""

    base: "GraphNode"
    actions: tuple[FileAction, ...]


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class Merge(Named):
    """`COPY --link`: `layer` was made on `Scratch` and comes on top of `base` as it is."""

    base: "GraphNode"
    layer: "GraphNode"


GraphNode: TypeAlias = (
    ImageSource | Scratch | LocalSource | HttpSource | GitSource | SolvedSource | Exec | Files | Merge
)


def inputs(node: GraphNode) -> tuple[GraphNode, ...]:
    """List what a node needs: its base first, then what it mounts or copies from, in its own order."""
    match node:
        case Exec():
            return (node.base, *(mount.source for mount in node.mounts if mount.source is not None))
        case Files():
            return (node.base, *(action.source for action in node.actions if isinstance(action, Copy)))
        case Merge():
            return (node.base, node.layer)
        case _:
            return ()


def walk(last: GraphNode) -> list[GraphNode]:
    """List all nodes of a graph, each once and after its inputs. Bounded by nodes and edges; no recursion."""
    done: dict[int, GraphNode] = {}
    waiting: list[tuple[GraphNode, bool]] = [(last, False)]
    while waiting:
        node, inputs_done = waiting.pop()
        if id(node) in done:
            continue
        if inputs_done:
            done[id(node)] = node
            continue
        waiting.append((node, True))
        waiting += [(one, False) for one in reversed(inputs(node)) if id(one) not in done]
    return list(done.values())


def replace_sources(last: GraphNode, by: Mapping[GraphNode, GraphNode]) -> GraphNode:
    """Answer the graph with other nodes in the place of some that have no inputs. No recursion."""
    done: dict[GraphNode, GraphNode] = {}
    for node in walk(last):
        done[node] = by[node] if node in by else _with_inputs(node, done)
    return done[last]


def _with_inputs(node: GraphNode, new: Mapping[GraphNode, GraphNode]) -> GraphNode:
    if all(new[one] is one for one in inputs(node)):
        return node
    match node:
        case Exec():
            mounts = tuple(replace(one, source=one.source and new[one.source]) for one in node.mounts)
            return replace(node, base=new[node.base], mounts=mounts)
        case Files():
            actions = tuple(
                replace(one, source=new[one.source]) if isinstance(one, Copy) else one for one in node.actions
            )
            return replace(node, base=new[node.base], actions=actions)
        case Merge():
            return replace(node, base=new[node.base], layer=new[node.layer])
        case _:
            return node


def key(node: GraphNode, of_inputs: Sequence[str]) -> str:
    """Answer `sha256:…` of what a node does, given a key for each of its `inputs`.

    Whoever knows the digest of what a Copy or a bind mount selects gives that instead of the input's own key: then a
    changed stage with equal files makes no difference.
    """
    text = json.dumps([_plain(node), list(of_inputs)], separators=(",", ":"), ensure_ascii=True, sort_keys=True)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def digests(last: GraphNode) -> Mapping[GraphNode, str]:
    """Answer of each node of a graph, inputs first, the key of its definition: equal means the same work."""
    found: dict[GraphNode, str] = {}
    for node in walk(last):
        found[node] = key(node, [found[one] for one in inputs(node)])
    return found


def _plain(value: object) -> object:
    """Read a node's own fields as JSON; inputs enter by their keys, in the order of `inputs`.

    Fields at their default are left out: one that a later version adds leaves the keys of today as they are.
    """
    if isinstance(value, str | int | None):
        return value
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    own: dict[str, object] = {"": type(value).__name__}
    for name, default in OWN_FIELDS[type(value)]:
        one = getattr(value, name)
        if isinstance(one, Named):
            own[name] = ""
        elif one != default:
            own[name] = _plain(one)
    return own


OWN_FIELDS: Final[Mapping[type[object], list[tuple[str, object]]]] = {
    kind: [(one.name, one.default) for one in fields(kind) if one.name not in NOT_IN_KEYS]
    for kind in (
        *(ImageSource, Scratch, LocalSource, HttpSource, GitSource, SolvedSource, Exec, Files, Merge),
        *(StepMount, StepLimit, Copy, Mkdir, Mkfile, Remove),
    )
}
