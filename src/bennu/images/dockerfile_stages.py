"""Reads a Dockerfile as far as its builder needs: logical lines, stages, and the images they start from. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from bennu.errors import InvalidParameter, NotImplementedHere
from bennu.images.changes import probe_times
from bennu.images.dockerfile import NEEDS_BUILDKIT, Instruction, check_flags, expand, parse_line, split_words
from bennu.images.instruction_rules import check_arguments
from bennu.images.platform import wanted_platform

DIRECTIVE: Final = re.compile(r"#\s*(escape|syntax)\s*=\s*(\S+)\s*\Z", re.IGNORECASE)
IN_STAGES: Final = frozenset(
    (
        *("ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER"),
        *("ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
    )
)
NO_TRIGGERS: Final = ("FROM", "MAINTAINER")
TAKES_WORDS: Final = ("ADD", "COPY", "RUN")
HEREDOC: Final = re.compile(r"[0-9]*<<-?[^<]+")
# What a fetch of a whole repository looks like to a builder that can do it; Docker's classic builder cannot.
REPOSITORY: Final = re.compile(r"(git|ssh)://|git@|https?://.*\.git(#|$)", re.IGNORECASE)
SCRATCH: Final = "scratch"
START_INTERVAL: Final = re.compile(r"--start-interval=\S*\s*")


@dataclass(frozen=True, slots=True)
class Line:
    """A logical line: continued lines are joined, comments inside left out. `number` is where it begins."""

    number: int
    text: str
    instruction: Instruction


@dataclass(slots=True)
class DockerfileStage:
    """One stage, from a FROM to the next."""

    name: str  # lower case; "" if it has none
    base: str  # as written, arguments put in
    lines: list[Line] = field(default_factory=list)  # FROM first


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """The stages of a Dockerfile that a build needs."""

    escape: str
    head: Sequence[Line]  # ARGs before the first stage
    stages: Sequence[DockerfileStage]  # up to the target

    @property
    def step_count(self) -> int:
        return sum(len(stage.lines) for stage in self.stages)

    def images(self) -> list[str]:
        """List the images from outside in order of first use: bases, and what COPY takes from."""
        found: dict[str, None] = {}
        names: set[str] = set()
        for number, stage in enumerate(self.stages):
            if stage.base.lower() not in names and stage.base != SCRATCH:
                found[stage.base] = None
            for source in filter(None, map(_copied_from, stage.lines)):
                if not _is_stage(source, names, number):
                    found[source] = None
            names |= {stage.name} - {""}
        return list(found)

    def rewritten(self, replace: Mapping[str, str]) -> str:
        """Write the file anew with other names for the images from outside; one logical line a line.

        Old builders do not know HEALTHCHECK's --start-interval: it is left out, and belongs into the result.
        """
        out = [f"# escape={self.escape}"]
        out += [line.text for line in self.head]
        names: set[str] = set()
        for number, stage in enumerate(self.stages):
            base = stage.base.lower() if stage.base.lower() in names else replace.get(stage.base, stage.base)
            out.append(_from_line(stage, base))
            for line in stage.lines[1:]:
                if line.instruction.word in ("ADD", "COPY"):
                    out.append(_copy_line(line.instruction, names, number, replace))
                elif line.instruction.word == "HEALTHCHECK" and "start-interval" in line.instruction.flags:
                    out.append(START_INTERVAL.sub("", line.text, count=1))
                else:
                    out.append(line.text)
            names |= {stage.name} - {""}
        return "\n".join(out) + "\n"

    def check_triggers(self, of_images: Mapping[str, Sequence[str]]) -> None:
        """Refuse ONBUILD instructions of bases that may not be in this build.

        Raises: InvalidParameter, NotImplementedHere.
        """
        names: dict[str, DockerfileStage] = {}
        for stage in self.stages:
            below = names.get(stage.base.lower())
            for trigger in _recorded(below) if below else of_images.get(stage.base, ()):
                _check_trigger(trigger, set(names))
            if stage.name:
                names[stage.name] = stage

    def start_interval(self) -> int | str:
        """Answer the start interval of the HEALTHCHECK in force, in ns; else the image from outside that gives it.

        Raises: InvalidParameter for a HEALTHCHECK whose times cannot be read.
        """
        number = len(self.stages) - 1
        while True:
            stage = self.stages[number]
            for line in reversed(stage.lines):
                if line.instruction.word == "HEALTHCHECK":
                    return probe_times(line.instruction.flags).get("StartInterval", 0)
            below = [n for n in range(number) if self.stages[n].name and self.stages[n].name == stage.base.lower()]
            if not below:
                return stage.base
            number = below[-1]


def _is_stage(source: str, names: set[str], number: int) -> bool:
    return source.lower() in names or (source.isdecimal() and int(source) < number)


def _from_line(stage: DockerfileStage, base: str) -> str:
    return f"FROM {base} AS {stage.name}" if stage.name else f"FROM {base}"


def _copy_line(copy: Instruction, names: set[str], number: int, replace: Mapping[str, str]) -> str:
    """Write a COPY anew, so that there is one way to read it.

    `--link` only saves time: builders that do not know it may do without.
    """
    flags = {name: value for name, value in copy.flags.items() if name != "link"}
    source = flags.get("from", "")
    if source:  # the names of stages know no case; the builder behind us compares them as they are written
        flags["from"] = source.lower() if _is_stage(source, names, number) else replace[source]
    return " ".join([copy.word, *(f"--{name}={value}" for name, value in flags.items()), copy.rest])


def _recorded(stage: DockerfileStage) -> list[str]:
    return [line.instruction.rest for line in stage.lines if line.instruction.word == "ONBUILD"]


def _check_trigger(text: str, stages: set[str]) -> None:
    """Check one ONBUILD instruction: the builder takes it from the image as text, so it must be one plain line."""
    if not text.replace("\t", " ").isprintable() or text.rstrip().endswith(("\\", "`")):
        raise InvalidParameter("onbuild trigger should be a single expression")
    instruction = parse_line(text)
    check_instruction(instruction)
    if instruction.word in NO_TRIGGERS:
        raise InvalidParameter(f"{instruction.word} isn't allowed as an ONBUILD trigger")
    if instruction.word == "ONBUILD":
        raise InvalidParameter("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    source = instruction.flags.get("from", "")
    if source and source.lower() not in stages:
        raise NotImplementedHere(f"copying from the image {source} in an ONBUILD trigger is not implemented")


def check_instruction(instruction: Instruction) -> None:
    """Refuse instructions that a build does not honour. Raises: InvalidParameter, NotImplementedHere."""
    if instruction.word not in IN_STAGES:
        raise InvalidParameter(f"unknown instruction: {instruction.word}")
    check_flags(instruction)
    check_arguments(instruction)
    if instruction.word in TAKES_WORDS and any(map(HEREDOC.fullmatch, instruction.rest.split())):
        raise NotImplementedHere(f"the heredoc syntax {NEEDS_BUILDKIT}")
    if instruction.word == "ADD" and any(map(REPOSITORY.match, instruction.json_list() or instruction.rest.split())):
        raise NotImplementedHere(f"adding a repository {NEEDS_BUILDKIT}")


def _copied_from(line: Line) -> str:
    return line.instruction.flags.get("from", "") if line.instruction.word == "COPY" else ""


def parse_dockerfile(
    text: str, arguments: Mapping[str, str | None], target: str = "", *, has_labels: bool = False
) -> Dockerfile:
    """Read a Dockerfile up to `target`. Raises: InvalidParameter in Docker's words, as far as it shows in advance.

    `has_labels`: the image gets labels that are not in the text; with them even nothing at all is an image.
    """
    escape, lines = _logical_lines(text)
    if not lines:
        raise InvalidParameter("file with no instructions")
    for line in lines:
        try:
            check_instruction(line.instruction)
            _check_recorded(line.instruction)
        except InvalidParameter as error:
            raise InvalidParameter(f"dockerfile parse error on line {line.number}: {error}") from None
    head: list[Line] = []
    while lines and lines[0].instruction.word == "ARG":
        head.append(lines.pop(0))
    if not lines:
        raise InvalidParameter("no build stage in current context")
    if lines[0].instruction.word != "FROM":
        raise InvalidParameter(f"dockerfile parse error on line {lines[0].number}: no build stage in current context")
    stages = _until(_stages(lines, _global_arguments(head, arguments)), target)
    if stages[-1].base == SCRATCH and len(stages[-1].lines) == 1 and not has_labels:
        raise InvalidParameter("No image was generated. Is your Dockerfile empty?")
    return Dockerfile(escape, head, stages)


def _check_recorded(instruction: Instruction) -> None:
    """Refuse what ONBUILD may not even record; the rest is checked when it is to run. Raises: InvalidParameter."""
    if instruction.word != "ONBUILD":
        return
    word = parse_line(instruction.rest).word
    if not word:
        raise InvalidParameter("ONBUILD requires at least one argument")
    if word == "ONBUILD":
        raise InvalidParameter("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if word in NO_TRIGGERS:
        raise InvalidParameter(f"{word} isn't allowed as an ONBUILD trigger")


def _stages(lines: Sequence[Line], env: Mapping[str, str]) -> list[DockerfileStage]:
    stages: list[DockerfileStage] = []
    for line in lines:
        if line.instruction.word == "FROM":
            stage = _begin_stage(line, env)
            if stage.name and any(stage.name == other.name for other in stages):
                raise InvalidParameter(
                    f"dockerfile parse error on line {line.number}: {stage.name} stage name already used"
                )
            stages.append(stage)
        stages[-1].lines.append(line)
    return stages


def _begin_stage(line: Line, env: Mapping[str, str]) -> DockerfileStage:
    words = split_words(line.instruction.rest)
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
        raise InvalidParameter(
            f"dockerfile parse error on line {line.number}: FROM requires either one or three arguments"
        )
    name = words[2].lower() if len(words) == 3 else ""
    if name and not re.fullmatch(r"[a-z][a-z0-9-_.]*", name):
        raise InvalidParameter(
            f'dockerfile parse error on line {line.number}: invalid name for build stage: "{words[2]}", name can\'t '
            "start with a number or contain symbols"
        )
    platform = expand(line.instruction.flags.get("platform", ""), env)
    try:
        wanted_platform(platform)
    except InvalidParameter as error:
        raise InvalidParameter(f"failed to parse platform {platform}: {error}") from None
    base = expand(words[0], env)
    if not base:
        raise InvalidParameter(f"base name ({words[0]}) should not be blank")
    return DockerfileStage(name, base)


def _until(stages: list[DockerfileStage], target: str) -> list[DockerfileStage]:
    if not target:
        return stages
    for number, stage in enumerate(stages):
        if stage.name == target.lower() or target == str(number):
            return stages[: number + 1]
    raise InvalidParameter(f'target stage "{target}" could not be found')


def _global_arguments(head: Sequence[Line], arguments: Mapping[str, str | None]) -> dict[str, str]:
    env: dict[str, str] = {}
    for line in head:
        for word in split_words(line.instruction.rest):
            key, _, default = word.partition("=")
            given = arguments.get(key)
            env[key] = expand(default, env) if given is None else given
    return env


def _logical_lines(text: str) -> tuple[str, list[Line]]:
    """Split a text into its escape character and its logical lines."""
    escape = "\\"
    lines: list[Line] = []
    pending, begun = "", 0
    heading = True
    for number, physical in enumerate(text.lstrip("\ufeff").splitlines(), 1):
        stripped = physical.strip()
        directive = DIRECTIVE.match(stripped) if heading else None
        heading = directive is not None
        if directive and directive[1].lower() == "escape":
            if directive[2] not in ("\\", "`"):
                raise InvalidParameter(f"invalid ESCAPE '{directive[2]}'. Must be ` or \\")
            escape = directive[2]
        if not stripped or stripped.startswith("#"):
            continue
        begun = begun or number
        body = physical.rstrip()
        continued = body.endswith(escape)
        pending += body[:-1] if continued else physical
        if not continued:
            lines.append(_line(begun, pending))
            pending, begun = "", 0
    if pending.strip():
        lines.append(_line(begun, pending))
    return escape, lines


def _line(number: int, text: str) -> Line:
    text = text.strip()
    try:
        return Line(number, text, parse_line(text))
    except InvalidParameter as error:
        raise InvalidParameter(f"dockerfile parse error on line {number}: {error}") from None
