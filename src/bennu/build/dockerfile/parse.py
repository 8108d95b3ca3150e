"""Parses a Dockerfile into stages of statements; what an instruction must and may have is checked. Pure.

The rules and the words of the errors are those of BuildKit's `frontend/dockerfile/instructions`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bennu.build.dockerfile.expansion import SPACES
from bennu.build.dockerfile.failure import DockerfileError, suggest
from bennu.build.dockerfile.flags import Flags
from bennu.build.dockerfile.lines import LogicalLine, parse_heredoc, read_lines
from bennu.build.dockerfile.mounts import check_mount
from bennu.build.dockerfile.statements import (
    ArgStatement,
    ArgumentDefinition,
    CmdStatement,
    CopyStatement,
    EntrypointStatement,
    EnvStatement,
    ExposeStatement,
    FromStatement,
    HealthcheckStatement,
    LabelStatement,
    MaintainerStatement,
    OnbuildStatement,
    Pair,
    ProbeSettings,
    RunStatement,
    ShellStatement,
    StageStatement,
    StageText,
    StopsignalStatement,
    UserStatement,
    VolumeStatement,
    WorkdirStatement,
    describe,
)
from bennu.build.dockerfile.words import BLANKS, read_json_words, split_pairs, split_words
from bennu.build.graph import Location
from bennu.go.duration import parse_duration
from bennu.go.printing import quote

STAGE_NAME: Final = re.compile(r"[a-z][a-z0-9\-_.]*\Z")
ONBUILD: Final = re.compile(r"\s*ONBUILD\s*", re.IGNORECASE)
NETWORKS: Final = ("default", "none", "host")
NUMBERS: Final = re.compile(r"1(?:\.(\d{1,4}))?(?:\.\d+)?\Z", re.ASCII)
NEWER_MINOR: Final = 20  # the version that has COPY --parents
MAX_MOUNTS: Final = 100
MAX_DIGITS: Final = 11
SHORTEST_NS: Final = 10**6


@dataclass(slots=True)
class ParsedDockerfile:
    """A Dockerfile. `arguments` are the ARGs before the first FROM."""

    escape: str
    directives: Mapping[str, str]
    empty_continuations: tuple[Location, ...]
    arguments: list[ArgStatement] = field(default_factory=list)
    stages: list[StageText] = field(default_factory=list)


def parse(source: bytes) -> ParsedDockerfile:
    """Parse a Dockerfile. Raises: DockerfileError with the lines that are wrong."""
    lines = read_lines(source)
    newer = has_newer_flags(lines.directives.get("syntax", ""))
    found = ParsedDockerfile(lines.escape, lines.directives, tuple(lines.empty_continuations))
    for line in lines.lines:
        try:
            statement = _parse_line(line, lines.escape, newer=newer)
        except DockerfileError as error:
            where = error.location or line.location
            raise DockerfileError(f"dockerfile parse error on line {where.first}: {error}", where) from None
        if isinstance(statement, FromStatement):
            found.stages.append(StageText(statement))
        elif found.stages:
            found.stages[-1].statements.append(statement)
        elif isinstance(statement, ArgStatement):
            found.arguments.append(statement)
        else:
            raise DockerfileError("no build stage in current context", line.location)
    if not found.stages:
        raise DockerfileError("dockerfile contains no stages to build")
    return found


@dataclass(frozen=True, slots=True)
class ParsedChanges:
    """Instructions without a stage."""

    escape: str
    statements: tuple[StageStatement, ...]


def parse_changes(source: bytes, allowed: frozenset[str]) -> ParsedChanges:
    """Parse instructions without a FROM; none at all is well. Raises: DockerfileError, also for one not allowed."""
    lines = read_lines(source, may_be_empty=True)
    for line in lines.lines:
        if line.word.lower() not in allowed:
            raise DockerfileError(f"{line.word} is not a valid change command", line.location)
    statements = [_parse_line(line, lines.escape, newer=False) for line in lines.lines]
    return ParsedChanges(lines.escape, tuple(one for one in statements if not isinstance(one, FromStatement)))


def parse_trigger(text: str, location: Location) -> StageStatement:
    """Parse an ONBUILD instruction of a base; `location` is that of the FROM. Raises: DockerfileError."""
    try:
        lines = read_lines(text.encode(errors="replace")).lines
        if len(lines) != 1:
            raise DockerfileError("onbuild trigger should be a single expression")
        line = lines[0]
        moved = LogicalLine(line.text, line.word, line.flags, line.rest, location, (), line.heredocs)
        statement = _parse_line(moved, "\\", newer=True)
    except DockerfileError as error:
        raise DockerfileError(str(error), location) from None
    if isinstance(statement, FromStatement):
        raise DockerfileError("FROM isn't allowed as an ONBUILD trigger", location)
    return statement


def has_newer_flags(syntax: str) -> bool:
    """Tell whether `# syntax=docker/dockerfile:…` is newer than dockerd 28.5's: 1.20, or what moves (`1`, `1-labs`)."""
    if not syntax:
        return False
    tag = syntax.split(" ")[0].partition("@")[0].rpartition(":")[2] if ":" in syntax else "latest"
    version = NUMBERS.match(tag)
    return tag.endswith("-labs") or not version or not version[1] or (int(version[1]) >= NEWER_MINOR)


@dataclass(frozen=True, slots=True)
class _Parts:
    """One line, and what each of its readers needs of it."""

    line: LogicalLine
    escape: str
    newer: bool

    @property
    def flags(self) -> Flags:
        return Flags(self.line.word.upper(), self.line.flags, newer=self.newer)

    @property
    def shared(self) -> dict[str, Any]:
        """The fields that every statement has."""
        return {"word": self.line.word, "code": self.line.text.strip(SPACES), "location": self.line.location}

    def refuse_flags(self) -> None:
        """Refuse flags of any kind. Raises: DockerfileError."""
        Flags("", self.line.flags)

    def words_or_json(self) -> tuple[tuple[str, ...], bool]:
        """Read the rest as a JSON list, else as words between blanks; and whether it was JSON."""
        found = read_json_words(self.line.rest)
        if found is not None:
            return found, True
        return tuple(BLANKS.split(self.line.rest)) if self.line.rest else (), False

    def command(self) -> tuple[tuple[str, ...], bool]:
        """Read the rest as a JSON list, else as one text for a shell; and whether it is for a shell."""
        found = read_json_words(self.line.rest)
        if found is not None:
            return found, False
        return (self.line.rest,) if self.line.rest else (), True

    def one(self) -> str:
        if not self.line.rest:
            raise DockerfileError(f"{self.line.word.upper()} requires exactly one argument")
        return self.line.rest


def _parse_line(line: LogicalLine, escape: str, *, newer: bool) -> StageStatement | FromStatement:
    parser = PARSERS.get(line.word.lower())
    if parser is None:
        raise DockerfileError(
            f"unknown instruction: {line.word}{suggest(line.word, map(str.upper, PARSERS), any_case=True)}"
        )
    return parser(_Parts(line, escape, newer))


def _parse_from(parts: _Parts) -> FromStatement:
    line = parts.line
    words = BLANKS.split(line.rest) if line.rest else []
    name = ""
    if len(words) == 3 and words[1].lower() == "as":
        name = words[2].lower()
        if not STAGE_NAME.match(name):
            raise DockerfileError(
                f"invalid name for build stage: {quote(words[2])}, name can't start with a number or contain symbols"
            )
    elif len(words) != 1:
        raise DockerfileError("FROM requires either one or three arguments")
    return FromStatement(
        **parts.shared,
        base=words[0],
        name=name,
        named_as=(words[1], words[2]) if name else None,
        platform=parts.flags.text("platform"),
        comments=line.comments,
    )


def _parse_arg(parts: _Parts) -> ArgStatement:
    line = parts.line
    definitions = []
    for word in split_words(line.rest, parts.escape):
        name, found, value = word.partition("=")
        if not name:
            raise DockerfileError("ARG names can not be blank")
        definitions.append(ArgumentDefinition(name, value if found else None, describe(line.comments, name)))
    if not definitions:
        raise DockerfileError("ARG requires at least one argument")
    return ArgStatement(**parts.shared, definitions=tuple(definitions))


def _pairs(parts: _Parts) -> tuple[Pair, ...]:
    instruction = parts.line.word.upper()
    parts.refuse_flags()
    found = split_pairs(instruction, parts.line.rest, parts.escape)
    if not found:
        raise DockerfileError(f"{instruction} requires at least one argument")
    if not all(name for name, _, _ in found):
        raise DockerfileError(f"{instruction} names can not be blank")
    return tuple(Pair(*one) for one in found)


def _parse_env(parts: _Parts) -> EnvStatement:
    return EnvStatement(**parts.shared, pairs=_pairs(parts))


def _parse_label(parts: _Parts) -> LabelStatement:
    return LabelStatement(**parts.shared, pairs=_pairs(parts))


def _parse_run(parts: _Parts) -> RunStatement:
    line, flags = parts.line, parts.flags
    words, shell = parts.command()
    if len(flags.texts("mount")) > MAX_MOUNTS:
        raise DockerfileError(f"more than {MAX_MOUNTS} mounts")
    for mount in flags.texts("mount"):
        check_mount(mount)
    if (network := flags.text("network", "default")) not in NETWORKS:
        raise DockerfileError(f"invalid network mode {quote(network)}")
    return RunStatement(
        **parts.shared,
        words=words,
        shell=shell,
        heredocs=line.heredocs,
        mounts=flags.texts("mount"),
        network=network,
        devices=flags.texts("device"),
    )


def _parse_cmd(parts: _Parts) -> CmdStatement:
    parts.refuse_flags()
    words, shell = parts.command()
    return CmdStatement(**parts.shared, words=words, shell=shell)


def _parse_entrypoint(parts: _Parts) -> EntrypointStatement:
    parts.refuse_flags()
    words, shell = parts.command()
    return EntrypointStatement(**parts.shared, words=words, shell=shell)


def _parse_copy(parts: _Parts) -> CopyStatement:
    line, instruction = parts.line, parts.line.word.upper()
    words, _ = parts.words_or_json()
    if len(words) < 2:
        raise DockerfileError(
            f"{instruction} requires at least two arguments, but only one was provided. Destination could not be "
            "determined"
        )
    flags = parts.flags
    *sources, destination = words
    if parse_heredoc(destination):
        raise DockerfileError(f"{instruction} cannot accept a heredoc as a destination")
    named = {one.name: one for one in line.heredocs}
    asked = [(source, parse_heredoc(source)) for source in sources]
    return CopyStatement(
        **parts.shared,
        is_add=instruction == "ADD",
        paths=tuple(source for source, document in asked if document is None),
        documents=tuple(named.get(document.name, document) for _, document in asked if document is not None),
        destination=destination,
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=flags.switch("link") or False,
        exclude=flags.texts("exclude"),
        source=flags.text("from"),
        parents=flags.switch("parents") or False,
        checksum=flags.text("checksum"),
        keep_git_dir=flags.switch("keep-git-dir"),
        unpack=flags.switch("unpack"),
    )


def _parse_healthcheck(parts: _Parts) -> HealthcheckStatement:
    line = parts.line
    kind, *more = re.split(r"\s+", line.rest, maxsplit=1)
    rest = more[0] if more else ""
    if not kind:
        raise DockerfileError("HEALTHCHECK requires at least one argument")
    if kind.upper() == "NONE":
        if rest:
            raise DockerfileError("HEALTHCHECK NONE takes no arguments")
        probe = ProbeSettings(("NONE",))
    else:
        probe = _parse_probe(kind.upper(), rest, parts.flags)
    return HealthcheckStatement(**parts.shared, probe=probe)


def _parse_probe(kind: str, rest: str, flags: Flags) -> ProbeSettings:
    if kind != "CMD":
        raise DockerfileError(f"Unknown type {quote(kind)} in HEALTHCHECK (try CMD)")
    words = read_json_words(rest)
    if not (words if words is not None else rest):
        raise DockerfileError("Missing command after HEALTHCHECK CMD")
    return ProbeSettings(
        ("CMD-SHELL", rest) if words is None else ("CMD", *words),
        interval_ns=_read_interval(flags, "interval"),
        timeout_ns=_read_interval(flags, "timeout"),
        start_period_ns=_read_interval(flags, "start-period"),
        start_interval_ns=_read_interval(flags, "start-interval"),
        retries=_read_retries(flags.text("retries")),
    )


def _read_retries(text: str) -> int:
    if not text:
        return 0
    if not re.fullmatch(r"[+-]?[0-9]+", text, re.ASCII):
        raise DockerfileError(f"strconv.ParseInt: parsing {quote(text)}: invalid syntax")
    if len(text) > MAX_DIGITS or abs(int(text)) >= 2**31:
        raise DockerfileError(f"strconv.ParseInt: parsing {quote(text)}: value out of range")
    if int(text) < 0:
        raise DockerfileError(f"--retries cannot be negative ({int(text)})")
    return int(text)


def _read_interval(flags: Flags, name: str) -> int:
    if not (text := flags.text(name)):
        return 0
    try:
        interval_ns = parse_duration(text, signed=True)
    except ValueError as error:
        raise DockerfileError(str(error)) from None
    if interval_ns and interval_ns < SHORTEST_NS:
        raise DockerfileError(f"Interval {quote(name)} cannot be less than 1ms")
    return interval_ns


def _parse_expose(parts: _Parts) -> ExposeStatement:
    line = parts.line
    if not line.rest:
        raise DockerfileError("EXPOSE requires at least one argument")
    parts.refuse_flags()
    ports = tuple(sorted(BLANKS.split(line.rest)))
    return ExposeStatement(**parts.shared, ports=ports)


def _parse_volume(parts: _Parts) -> VolumeStatement:
    words, _ = parts.words_or_json()
    if not words:
        raise DockerfileError("VOLUME requires at least one argument")
    parts.refuse_flags()
    paths = tuple(word.strip() for word in words)
    if "" in paths:
        raise DockerfileError("VOLUME specified can not be an empty string")
    return VolumeStatement(**parts.shared, paths=paths)


def _parse_shell(parts: _Parts) -> ShellStatement:
    parts.refuse_flags()
    words, is_text = parts.command()
    if not words:
        raise DockerfileError("SHELL requires at least one argument")
    if is_text:
        raise DockerfileError("SHELL requires the arguments to be in JSON form")
    return ShellStatement(**parts.shared, words=words)


def _parse_onbuild(parts: _Parts) -> OnbuildStatement:
    line = parts.line
    parts.refuse_flags()
    if not line.rest:
        raise DockerfileError("ONBUILD requires at least one argument")
    trigger = BLANKS.split(line.rest, maxsplit=1)[0].upper()
    if trigger == "ONBUILD":
        raise DockerfileError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in ("MAINTAINER", "FROM"):
        raise DockerfileError(f"{trigger} isn't allowed as an ONBUILD trigger")
    documents = "".join(f"\n{one.content}{one.name}" for one in line.heredocs)
    text = ONBUILD.sub("", line.text, count=1) + documents
    return OnbuildStatement(**parts.shared, trigger=text)


def _parse_maintainer(parts: _Parts) -> MaintainerStatement:
    text = parts.one()
    parts.refuse_flags()
    return MaintainerStatement(**parts.shared, maintainer=text)


def _parse_user(parts: _Parts) -> UserStatement:
    text = parts.one()
    parts.refuse_flags()
    return UserStatement(**parts.shared, user=text)


def _parse_workdir(parts: _Parts) -> WorkdirStatement:
    text = parts.one()
    parts.refuse_flags()
    return WorkdirStatement(**parts.shared, path=text)


def _parse_stopsignal(parts: _Parts) -> StopsignalStatement:
    return StopsignalStatement(**parts.shared, signal=parts.one())


PARSERS: Final[Mapping[str, Callable[[_Parts], StageStatement | FromStatement]]] = {
    "add": _parse_copy,
    "arg": _parse_arg,
    "cmd": _parse_cmd,
    "copy": _parse_copy,
    "entrypoint": _parse_entrypoint,
    "env": _parse_env,
    "expose": _parse_expose,
    "from": _parse_from,
    "healthcheck": _parse_healthcheck,
    "label": _parse_label,
    "maintainer": _parse_maintainer,
    "onbuild": _parse_onbuild,
    "run": _parse_run,
    "shell": _parse_shell,
    "stopsignal": _parse_stopsignal,
    "user": _parse_user,
    "volume": _parse_volume,
    "workdir": _parse_workdir,
}
