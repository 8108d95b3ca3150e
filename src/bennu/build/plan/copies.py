"""COPY and ADD: the node that copies, what it copies from, and its line of history. Pure."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from bennu.build.dockerfile.expansion import Style
from bennu.build.dockerfile.failure import DockerfileError
from bennu.build.dockerfile.lines import Heredoc
from bennu.build.dockerfile.statements import CopyStatement
from bennu.build.graph import Copy, Files, GitSource, GraphNode, HttpSource, Merge, Mkfile, Scratch
from bennu.build.plan.commands import INLINE
from bennu.build.plan.paths import clean, destination
from bennu.build.plan.remotes import WEB, GitRepository, file_name, parse_repository
from bennu.build.plan.stage_state import StageState, shown
from bennu.go.printing import quote

OCTAL: Final = re.compile(r"[0-7]{1,11}\Z", re.ASCII)
SYMBOLIC: Final = re.compile(r"[ugoa]*(?:[-+=](?:[rwxXst]*|[ugo]))+(?:,[ugoa]*(?:[-+=](?:[rwxXst]*|[ugo]))+)*\Z")
CHECKSUM: Final = re.compile(r"(?:sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})\Z")
MAX_MODE: Final = 0o7777
PIVOT: Final = "/./"


@dataclass(frozen=True, slots=True)
class CopyPlace:
    """What a COPY needs beside its stage. `source`: the context, or the stage or image of `--from`."""

    source: GraphNode
    escape: str
    no_cache: bool
    is_trigger: bool
    warn_ignored: Callable[[str], None]


def plan_copy(state: StageState, copy: CopyStatement, place: CopyPlace) -> None:
    """Add a COPY or ADD, its variables put in already, to a stage. Raises: DockerfileError."""
    mode = check_mode(copy.chmod)
    repositories = [parse_repository(path) for path in copy.paths]
    _check_checksum(copy, repositories)
    name = shown(copy.code, state.env, Style(escape=place.escape))
    step_name = state.step_name(name, is_trigger=place.is_trigger)
    common = Copy(
        source=place.source,
        paths=(),
        destination=destination(copy.destination, state.cwd),
        user=copy.chown,
        mode=mode,
        exclude=copy.exclude,
    )
    actions: list[Copy] = []
    for path, repository in zip(copy.paths, repositories, strict=True):
        if repository is not None:
            git = _git_source(copy, repository, step_name, state.platform)
            actions.append(replace(common, source=git, paths=("/",), literal=True))
        elif path.startswith(WEB):
            actions.append(_of_web(copy, path, common, step_name, state.platform))
        else:
            place.warn_ignored(path)
            _add_local(actions, copy, path, common)
    actions += [_of_document(one, common, state.platform) for one in copy.documents]
    state.node = _make_node(state, copy, place, tuple(actions), step_name)
    state.draft.commit(_history(copy), layer=True, marked=True)


def _make_node(
    state: StageState, copy: CopyStatement, place: CopyPlace, actions: tuple[Copy, ...], step_name: str
) -> GraphNode:
    here = Files(
        name=step_name,
        location=copy.location,
        no_cache=place.no_cache,
        platform=state.platform,
        base=state.node,
        actions=actions,
    )
    if not copy.link or copy.chmod:  # as BuildKit: a mode of its own needs the base
        return here
    layer = replace(here, base=Scratch(platform=state.platform))
    return Merge(location=copy.location, platform=state.platform, base=state.node, layer=layer)


def check_mode(text: str) -> str:
    """Check what `--chmod` says. Raises: DockerfileError."""
    if not text or SYMBOLIC.match(text):
        return text
    if OCTAL.match(text) and int(text, 8) <= MAX_MODE:
        return text
    if text[0].isdecimal():
        wrong = f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
        raise DockerfileError(wrong)
    raise DockerfileError(f"invalid chmod parameter: '{text}': invalid syntax")


def _check_checksum(copy: CopyStatement, repositories: list[GitRepository | None]) -> None:
    if not copy.checksum:
        return
    if len(copy.paths) != 1:
        raise DockerfileError("checksum can't be specified for multiple sources")
    if repositories[0] is None and not copy.paths[0].startswith(WEB):
        raise DockerfileError("checksum requires HTTP(S) or Git sources")
    if repositories[0] is None and not CHECKSUM.match(copy.checksum):
        algorithm, colon, _ = copy.checksum.partition(":")
        known = algorithm in ("sha256", "sha384", "sha512")
        kind = "length" if colon and known else "format" if not colon else "algorithm"
        what = {"length": "invalid checksum digest length", "format": "invalid checksum digest format"}
        raise DockerfileError(what.get(kind, "unsupported digest algorithm"))


def _git_source(copy: CopyStatement, repository: GitRepository, name: str, platform: str) -> GitSource:
    if not copy.is_add:
        raise DockerfileError("source can't be a git ref for COPY")
    keep = copy.keep_git_dir if repository.keep_git_dir is None else repository.keep_git_dir
    if copy.keep_git_dir not in (None, keep):
        raise DockerfileError("inconsistent keep-git-dir configuration")
    if copy.checksum and repository.checksum not in ("", copy.checksum):
        raise DockerfileError(f"checksum mismatch {quote(copy.checksum)} != {quote(repository.checksum)}")
    return git_source(
        replace(repository, keep_git_dir=keep, checksum=repository.checksum or copy.checksum), name, platform
    )


def git_source(repository: GitRepository, name: str, platform: str) -> GitSource:
    """Make the node of a repository."""
    return GitSource(
        name=name,
        platform=platform,
        url=repository.url,
        ref=repository.ref,
        subdir=repository.subdir,
        keep_git_dir=bool(repository.keep_git_dir),
        checksum=repository.checksum,
        submodules=repository.submodules,
    )


def _of_web(copy: CopyStatement, url: str, common: Copy, name: str, platform: str) -> Copy:
    if not copy.is_add:
        raise DockerfileError("source can't be a URL for COPY")
    file = file_name(url)
    source = HttpSource(name=name, platform=platform, url=url, filename=file, checksum=copy.checksum)
    return replace(common, source=source, paths=(clean(file),), unpack=copy.unpack or False, literal=True)


def _add_local(actions: list[Copy], copy: CopyStatement, path: str, common: Copy) -> None:
    """Add a path of the context or of a stage, to the copy of the path before it if that is one too."""
    if copy.parents:
        pivot, found, pattern = path.partition(PIVOT)
        cleaned = f"{clean(pivot).rstrip('/')}/.{clean(pattern)}" if found else f"/.{clean(path)}"
    else:
        cleaned = clean(path)
    unpack = copy.is_add if copy.unpack is None else copy.unpack
    last = actions[-1] if actions else None
    if last is not None and last.source is common.source:
        actions[-1] = replace(last, paths=(*last.paths, cleaned))
    else:
        actions.append(replace(common, paths=(cleaned,), parents=copy.parents, unpack=unpack))


def _of_document(document: Heredoc, common: Copy, platform: str) -> Copy:
    file = Mkfile(path=clean(document.name), data=document.text.encode(), mode=0o644)
    source = Files(name=INLINE, platform=platform, base=Scratch(platform=platform), actions=(file,))
    return replace(common, source=source, paths=(file.path,), literal=True)


def _history(copy: CopyStatement) -> str:
    words = ["ADD" if copy.is_add else "COPY"]
    words += ["--parents"] if copy.parents else []
    words += [f"--chown={copy.chown}"] if copy.chown else []
    words += [f"--chmod={copy.chmod}"] if copy.chmod else []
    return " ".join([*words, *copy.paths, *(f"<<{one.name}" for one in copy.documents), copy.destination])
