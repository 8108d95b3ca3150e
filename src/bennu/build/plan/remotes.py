"""Sources of ADD that are fetched: repositories and files of the web. Pure."""

import posixpath
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from bennu.build.dockerfile.failure import DockerfileError
from bennu.go.bool import parse_bool
from bennu.go.printing import quote

SCHEME: Final = re.compile(r"([a-zA-Z0-9]+)://")
GIT_SCHEMES: Final = frozenset(("http", "https", "ssh", "git"))
WEB: Final = ("http://", "https://")
SCP: Final = re.compile(r"([a-zA-Z0-9_][a-zA-Z0-9-_]*)@([a-zA-Z0-9][a-zA-Z0-9-.]*):(.*?)(?:\?(.*?))?(?:#(.*))?\Z")
UNNAMED: Final = "__unnamed__"
SWITCHES: Final = frozenset(("keep-git-dir", "submodules"))


@dataclass(slots=True)
class GitRepository:
    """A repository as ADD or a context names it: `https://host/x.git#ref:subdir`, `git@host:x.git?ref=…`."""

    url: str  # for git, without what is asked of it
    ref: str = ""
    subdir: str = ""
    checksum: str = ""
    keep_git_dir: bool | None = None
    submodules: bool = True


def parse_repository(text: str) -> GitRepository | None:
    """Read the name of a repository; None: it is none. Raises: DockerfileError for one that asks for nonsense."""
    if found := SCHEME.match(text):
        scheme = found[1].lower()
        try:
            parts = urlsplit(text)
        except ValueError:
            return None
        if scheme not in GIT_SCHEMES or (scheme in ("http", "https") and not parts.path.endswith(".git")):
            return None
        url = urlunsplit(parts._replace(query="", fragment=""))
        query, fragment = parts.query, parts.fragment
    elif found := SCP.match(text):
        url, query, fragment = f"{found[1]}@{found[2]}:{found[3]}", found[4] or "", found[5] or ""
    else:
        return None
    ref, _, subdir = fragment.partition(":")
    repository = GitRepository(url, ref, subdir)
    _take_query(repository, query)
    return repository


def _take_query(repository: GitRepository, query: str) -> None:
    given: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True, max_num_fields=100):
        if name in given:
            raise DockerfileError(f"query {quote(name)} has multiple values")
        if not value and name not in SWITCHES:
            raise DockerfileError(f"query {quote(name)} has no value")
        given[name] = value
    for name, value in given.items():
        match name:
            case "ref":
                _set_ref(repository, value)
            case "subdir":
                if repository.subdir not in ("", value):
                    raise DockerfileError(f"subdir conflicts: {quote(repository.subdir)} vs {quote(value)}")
                repository.subdir = value
            case "checksum" | "commit":
                repository.checksum = value
            case "keep-git-dir":
                repository.keep_git_dir = _read_switch(name, value)
            case "submodules":
                repository.submodules = _read_switch(name, value)
            case "tag" | "branch":
                pass
            case _:
                raise DockerfileError(f"unexpected query {quote(name)}")
    if "tag" in given and "branch" in given:
        raise DockerfileError("branch conflicts with tag")
    for name, prefix in (("tag", "refs/tags/"), ("branch", "refs/heads/")):
        if name in given:
            _set_ref(repository, prefix + given[name].removeprefix(prefix))


def _set_ref(repository: GitRepository, ref: str) -> None:
    if repository.ref not in ("", ref):
        raise DockerfileError(f"ref conflicts: {quote(repository.ref)} vs {quote(ref)}")
    repository.ref = ref


def _read_switch(name: str, value: str) -> bool:
    try:
        return parse_bool(value) if value else True
    except ValueError:
        raise DockerfileError(f"invalid {name} value: {quote(value)}") from None


def file_name(url: str) -> str:
    """Answer what a file of the web is called here: the last part of its path."""
    try:
        name = posixpath.basename(posixpath.normpath(urlsplit(url).path))
    except ValueError:
        name = ""
    return name if name not in ("", ".", "/") else UNNAMED
