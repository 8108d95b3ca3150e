"""RUN: the node that runs a command, with its mounts and its line of history. Pure."""

import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bennu.build.dockerfile.expansion import Style
from bennu.build.dockerfile.failure import DockerfileError
from bennu.build.dockerfile.lines import parse_heredoc
from bennu.build.dockerfile.mounts import MountRequest, parse_mount
from bennu.build.dockerfile.statements import RunStatement
from bennu.build.graph import Exec, Files, GraphNode, Mkfile, MountKind, Scratch, StepMount
from bennu.build.plan.options import PlanOptions
from bennu.build.plan.paths import clean
from bennu.build.plan.stage_state import StageState, shown
from bennu.go.printing import quote

INLINE: Final = "[internal] preparing inline document"
PIPES: Final = "/dev/pipes/"
SECRETS: Final = "/run/secrets/"
MASK: Final = "****"
PROXIES: Final = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
CACHE_NAMESPACE: Final = "BUILDKIT_CACHE_MOUNT_NS"


@dataclass(frozen=True, slots=True)
class RunPlace:
    """What a RUN needs beside its stage: each mount's source by its position, and what puts variables in."""

    options: PlanOptions
    escape: str
    expand: Callable[[str], str]
    source: Callable[[int, MountRequest], GraphNode]
    no_cache: bool
    is_trigger: bool


def plan_run(state: StageState, run: RunStatement, place: RunPlace) -> None:
    """Add a RUN to a stage. Raises: DockerfileError."""
    words, summary, script = _words(state, run)
    argv = state.draft.in_shell(words) if run.shell else list(words)
    requests = [parse_mount(text, place.expand) for text in run.mounts]
    mounts = [_mount(state, request, number, place) for number, request in enumerate(requests)]
    if script:
        mounts.insert(0, script)
    masked = {**state.env, **{one.env: MASK for one in requests if one.env is not None}}
    name = shown(run.code + summary, masked, Style(escape=place.escape, raw_quotes=True, keep_unset=True))
    options = place.options
    network = options.network if run.network == "default" else run.network
    if network == "host" and not (options.allow_host_network or options.network == "host"):
        raise DockerfileError("failed to load LLB: network.host is not allowed")
    if run.devices:
        raise DockerfileError("device feature is only supported in Dockerfile frontend 1.14.0-labs or later")
    state.node = Exec(
        name=state.step_name(name, is_trigger=place.is_trigger),
        location=run.location,
        no_cache=place.no_cache,
        platform=state.platform,
        base=state.node,
        argv=tuple(argv),
        env=state.words_of_env(),
        cwd=state.cwd,
        user=state.user,
        mounts=tuple(mounts),
        network=network,
        hosts=options.hosts,
        hostname=options.hostname,
        limits=options.limits,
        cgroup_parent=options.cgroup_parent,
        shm_size=options.shm_size,
        proxy_env=proxy_env(options.arguments),
    )
    state.draft.commit("RUN " + _history(state, argv), layer=True, marked=True)


def _words(state: StageState, run: RunStatement) -> tuple[Sequence[str], str, StepMount | None]:
    """Answer what is run, what a heredoc adds to the step's name, and the mount of a script with an interpreter."""
    if not run.heredocs:
        return run.words, "", None
    first = run.heredocs[0]
    if parse_heredoc(run.words[0]) is None:  # a shell of its own reads these
        documents = "".join(f"\n{one.content}{one.name}" for one in run.heredocs)
        return (run.words[0] + documents,), "", None
    summary = f" ({summarize(first.content)})"
    if not first.content.startswith("#!"):
        return (first.text,), summary, None
    file = Mkfile(path=clean(first.name), data=first.text.encode(), mode=0o755)
    script = Files(name=INLINE, platform=state.platform, base=Scratch(platform=state.platform), actions=(file,))
    mount = StepMount(kind=MountKind.BIND, target=PIPES.rstrip("/"), source=script, read_only=True)
    return (posixpath.join(PIPES, first.name),), summary, mount


def summarize(document: str) -> str:
    """Answer the first line of a document that says something; `...` stands for the others."""
    lines = document.strip().replace("\r\n", "\n").split("\n")
    return lines[0] + ("..." if len(lines) > 1 else "")


def _history(state: StageState, argv: Sequence[str]) -> str:
    arguments = [f"{name}={state.env.get(name, value or '')}" for name, value in state.arguments.items()]
    count = [f"|{len(arguments)}"] if arguments else []
    return " ".join([*count, *arguments, *argv])


def proxy_env(arguments: Mapping[str, str]) -> tuple[str, ...]:
    """Answer the proxies among a build's arguments as variables, in capitals and in small letters."""
    found = {name.lower(): value for name, value in arguments.items() if name.lower() in PROXIES}
    return tuple(f"{one}={found[name]}" for name in PROXIES if name in found for one in (name.upper(), name))


# --- mounts -----------------------------------------------------------------------------------------------------------


def _mount(state: StageState, request: MountRequest, number: int, place: RunPlace) -> StepMount:
    match request.kind:
        case MountKind.SECRET:
            return _secret(request)
        case MountKind.SSH:
            return _agent(request)
    target = clean(request.target, state.cwd)
    if target == "/":
        raise DockerfileError(f"invalid mount target {quote('/')}")
    if request.kind is MountKind.TMPFS:
        return StepMount(kind=request.kind, target=target, size=request.size, read_only=bool(request.read_only))
    is_empty = request.kind is MountKind.CACHE and not request.base
    id = ""
    if request.kind is MountKind.CACHE:
        namespace = place.options.arguments.get(CACHE_NAMESPACE, "")
        id = (f"{namespace}/" if namespace else "") + (request.id or posixpath.normpath(request.target))
    return StepMount(
        kind=request.kind,
        target=target,
        source=None if is_empty else place.source(number, request),
        source_path=clean(request.source),
        read_only=bool(request.read_only),
        id=id,
        sharing=request.sharing or "shared",
        mode=request.mode,
        uid=request.uid,
        gid=request.gid,
    )


def _secret(request: MountRequest) -> StepMount:
    id = request.source or request.id or posixpath.basename(request.target)
    target = clean(request.target) if request.target else ""
    if not target and request.env is None:
        target = SECRETS + posixpath.basename(id)
    return StepMount(
        kind=MountKind.SECRET,
        target=target,
        id=id,
        mode=request.mode,
        uid=request.uid,
        gid=request.gid,
        env_name=request.env or "",
        required=request.required,
        read_only=True,
    )


def _agent(request: MountRequest) -> StepMount:
    if request.source:
        raise DockerfileError("ssh does not support source")
    return StepMount(
        kind=MountKind.SSH,
        target=clean(request.target) if request.target else "",
        id=request.id or "default",
        mode=request.mode,
        uid=request.uid,
        gid=request.gid,
        required=request.required,
        read_only=True,
    )
