"""Which stages there are, what each stands on and takes from, and which a target needs. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from bennu.build.dockerfile.expansion import Expanded, Style, expand
from bennu.build.dockerfile.failure import DockerfileError, suggest
from bennu.build.dockerfile.mounts import check_mount
from bennu.build.dockerfile.parse import ParsedDockerfile, parse_trigger
from bennu.build.dockerfile.statements import (
    CopyStatement,
    OnbuildStatement,
    RunStatement,
    StageStatement,
    StageText,
    WorkdirStatement,
)
from bennu.build.graph import Location
from bennu.build.plan.options import PlanOptions
from bennu.errors import InvalidParameter
from bennu.go.platform import ImagePlatform, parse_platform
from bennu.go.printing import quote
from bennu.images.reference import parse_reference

SCRATCH: Final = "scratch"
CONTEXT: Final = "context"
MAX_STAGES: Final = 2_000


@dataclass(eq=False, slots=True)
class Stage:
    """One stage, or an image that something is copied from: then it has no text.

    base: the stage it stands on; None = `image`. context: what a named context gives in its place.
    sources: for each of its commands that takes from elsewhere, the stages it takes from.
    """

    name: str  # as vertices show it; "" for the only one
    image: str  # as it is written, arguments put in
    location: Location
    text: StageText | None = None
    given_name: str = ""  # in lower case; "" = none
    number: int = -1
    base: "Stage | None" = None
    platform: str = ""  # asked for; "" = the target's
    context: str | None = None
    commands: list["Command"] = field(default_factory=list)
    total: int = 0  # of steps that have a number
    written_total: int = 0  # without those of ONBUILD instructions
    triggers_read: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """One statement of a stage, and the stages that it takes files from: for a mount without any None."""

    statement: StageStatement
    sources: tuple[Stage | None, ...] = ()
    is_trigger: bool = False


@dataclass(eq=False, slots=True)
class StageTable:
    """All stages of a Dockerfile, those that only stand for images behind them."""

    options: PlanOptions
    escape: str
    globals: Mapping[str, str]
    stages: list[Stage] = field(default_factory=list)
    of_images: dict[str, Stage] = field(default_factory=dict)
    by_name: dict[str, Stage] = field(default_factory=dict)

    def add(self, text: StageText, base: Expanded, platform: str) -> None:
        """Add a stage that is written. Raises: DockerfileError."""
        begin = text.begin
        number = len(self.stages)
        stage = Stage(
            name=begin.name or f"stage-{number}",
            image=base.text,
            location=begin.location,
            text=text,
            given_name=begin.name,
            number=number,
            platform=platform,
        )
        if begin.name:
            stage.context = self.context_of(begin.name, platform)
        if stage.context is None:
            stage.base = self.by_name.get(stage.image)
        stage.total = count_steps(text.statements) + (stage.base is None and stage.image != SCRATCH)
        stage.written_total = stage.total
        self.stages.append(stage)
        if begin.name:
            self.by_name[begin.name] = stage

    def context_of(self, name: str, platform: str) -> str | None:
        """Answer the named context that stands in for a stage or image; None: there is none."""
        if not self.options.contexts or name.lower() in (SCRATCH, CONTEXT):
            return None
        try:
            familiar = str(parse_reference(name)).removesuffix(":latest")
        except InvalidParameter as error:
            raise DockerfileError(f"invalid context name {name}: {error}") from None
        wanted = platform or self.options.platform or self.options.host_platform
        found = self.options.contexts.get(f"{familiar}::{wanted}")
        return self.options.contexts.get(familiar) if found is None else found

    def link(self) -> None:
        """Find what each command takes from elsewhere. Raises: DockerfileError."""
        for stage in self.stages:
            if stage.text is not None and stage.context is None:
                stage.commands = [self.command(one) for one in stage.text.statements]
        self.refuse_circles()
        # BuildKit takes the empty root of a mount for one more stage.
        has_mounts = any(isinstance(one.statement, RunStatement) and one.sources for one in self.stages[0].commands)
        if len(self.stages) == 1 and not self.of_images and not has_mounts:
            self.stages[0].name = ""

    def command(self, statement: StageStatement, *, is_trigger: bool = False) -> Command:
        sources: tuple[Stage | None, ...] = ()
        if isinstance(statement, CopyStatement) and statement.source:
            sources = (self.copied_from(statement),)
        elif isinstance(statement, RunStatement):
            froms = map(check_mount, statement.mounts)
            sources = tuple(
                self.by_name.get(one.lower()) or self.image(one, statement.location) if one else None for one in froms
            )
        return Command(statement, sources, is_trigger)

    def copied_from(self, statement: CopyStatement) -> Stage:
        source, location = statement.source, statement.location
        try:
            plain = expand(source, {}, Style(escape=self.escape)).text
        except DockerfileError as error:
            raise error.at(location) from None
        if plain != source:
            raise DockerfileError(
                "variable expansion is not supported for --from, define a new stage with FROM using ARG from global "
                "scope as a workaround"
            )
        if source.isascii() and source.isdecimal():
            if len(source) > 9 or int(source) >= len(self.stages):
                raise DockerfileError(f"invalid stage index {source}")
            return self.stages[int(source)]
        return self.by_name.get(source.lower()) or self.image(source, location)

    def image(self, reference: str, location: Location) -> Stage:
        """Answer the stage that stands for an image."""
        if reference not in self.of_images:
            self.of_images[reference] = Stage(name="", image=reference, location=location)
        return self.of_images[reference]

    def find_target(self) -> Stage:
        """Answer the stage that is asked for. Raises: DockerfileError."""
        wanted = self.options.target
        if not wanted:
            return self.stages[-1]
        if (found := self.by_name.get(wanted.lower())) is None:
            names = [stage.name for stage in self.stages if stage.name]
            raise DockerfileError(f"target stage {quote(wanted)} could not be found{suggest(wanted, names)}")
        return found

    def add_triggers(self, stage: Stage, triggers: Iterable[str]) -> None:
        """Put ONBUILD instructions before a stage's own. Raises: DockerfileError."""
        statements = [parse_trigger(text, stage.location) for text in triggers]
        commands = [self.command(one, is_trigger=True) for one in statements]
        stage.commands[:0] = commands
        stage.total += len(statements)
        stage.triggers_read = True
        if any(one.sources for one in commands):
            self.refuse_circles()

    def refuse_circles(self) -> None:
        """Fail if a stage needs itself. Raises: DockerfileError."""
        done: set[Stage] = set()
        open_stages: list[tuple[Stage, Iterator[Stage]]] = []
        way: set[Stage] = set()
        for first in self.stages:
            if first in done:
                continue
            open_stages.append((first, iter(needs_of(first))))
            way.add(first)
            while open_stages:
                stage, needs = open_stages[-1]
                if (need := next(needs, None)) is None:
                    open_stages.pop()
                    way.discard(stage)
                    done.add(stage)
                elif need in way:
                    message = f"circular dependency detected on stage: {first.name}"
                    raise DockerfileError(message, _where(stage, need))
                elif need not in done:
                    open_stages.append((need, iter(needs_of(need))))
                    way.add(need)


def needs_of(stage: Stage) -> list[Stage]:
    """List what a stage stands on and takes from, each once."""
    found = dict.fromkeys([stage.base] if stage.base else [])
    found |= dict.fromkeys(source for command in stage.commands for source in command.sources if source)
    return list(found)


def reachable(target: Stage) -> list[Stage]:
    """List the stages that a target needs, each after what it needs itself; no recursion."""
    done: dict[Stage, None] = {}
    waiting = [(target, False)]
    while waiting:
        stage, needs_done = waiting.pop()
        if stage in done:
            continue
        if needs_done:
            done[stage] = None
        else:
            waiting.append((stage, True))
            waiting += [(need, False) for need in reversed(needs_of(stage)) if need not in done]
    return list(done)


def recorded_triggers(stage: Stage) -> list[str]:
    """List the ONBUILD instructions that a stage has for those that stand on it."""
    return [one.statement.trigger for one in stage.commands if isinstance(one.statement, OnbuildStatement)]


def count_steps(statements: Sequence[StageStatement]) -> int:
    """Count the statements that have a number in the progress."""
    return sum(isinstance(one, CopyStatement | RunStatement | WorkdirStatement) for one in statements)


def _where(stage: Stage, need: Stage) -> Location:
    return next((one.statement.location for one in stage.commands if need in one.sources), stage.location)


def read_platform(text: str, host: str) -> str:
    """Read a platform into its full form. Raises: ValueError in containerd's words."""
    return platform_text(parse_platform(text, host.split("/")[1]))


def platform_text(platform: ImagePlatform) -> str:
    variant = f"/{platform.variant}" if platform.variant else ""
    return f"{platform.os}/{platform.architecture}{variant}"


def parsed_stages(parsed: ParsedDockerfile) -> list[StageText]:
    """Answer the stages of a Dockerfile. Raises: DockerfileError if they are more than anyone builds."""
    if len(parsed.stages) > MAX_STAGES:
        raise DockerfileError(f"more than {MAX_STAGES} stages", parsed.stages[MAX_STAGES].begin.location)
    return parsed.stages
