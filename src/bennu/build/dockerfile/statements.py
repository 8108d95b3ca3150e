"""The instructions of a Dockerfile as values, variables not yet put in. Pure."""

from dataclasses import dataclass, field
from typing import TypeAlias

from bennu.build.dockerfile.lines import Heredoc
from bennu.build.graph import Location


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What every instruction has: its word as it is written, its whole text, its lines."""

    word: str
    code: str
    location: Location


@dataclass(frozen=True, slots=True)
class Pair:
    """`NAME=VALUE`; `legacy`: written with a blank instead of `=`."""

    name: str
    value: str
    legacy: bool = False


@dataclass(frozen=True, slots=True)
class ArgumentDefinition:
    """One name of an ARG; `value` None: without a default. `comment` describes it."""

    name: str
    value: str | None
    comment: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArgStatement(Statement):
    definitions: tuple[ArgumentDefinition, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvStatement(Statement):
    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelStatement(Statement):
    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintainerStatement(Statement):
    maintainer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandStatement(Statement):
    """RUN, CMD or ENTRYPOINT; `shell`: the one word is for a shell."""

    words: tuple[str, ...]
    shell: bool
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatement(CommandStatement):
    """`mounts` are the texts of `--mount`: variables may stand in them."""

    mounts: tuple[str, ...] = ()
    network: str = "default"
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CmdStatement(CommandStatement):
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class EntrypointStatement(CommandStatement):
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyStatement(Statement):
    """COPY, and with `is_add` ADD. Paths and flags as they are written; `documents` come after the paths."""

    is_add: bool
    paths: tuple[str, ...]
    documents: tuple[Heredoc, ...]
    destination: str
    chown: str = ""
    chmod: str = ""
    link: bool = False
    exclude: tuple[str, ...] = ()
    source: str = ""  # --from
    parents: bool = False
    checksum: str = ""
    keep_git_dir: bool | None = None  # None = not said
    unpack: bool | None = None


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """A HEALTHCHECK as an image's configuration has it; times in ns, 0 = not given."""

    test: tuple[str, ...]
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthcheckStatement(Statement):
    probe: ProbeSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposeStatement(Statement):
    ports: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UserStatement(Statement):
    user: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeStatement(Statement):
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkdirStatement(Statement):
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StopsignalStatement(Statement):
    signal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShellStatement(Statement):
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OnbuildStatement(Statement):
    """`trigger`: the instruction for builds that start from the result, as text."""

    trigger: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FromStatement(Statement):
    """The begin of a stage. `name` in lower case, "" = none; `named_as`: the word AS and the name as written."""

    base: str
    name: str = ""
    named_as: tuple[str, str] | None = None
    platform: str = ""
    comments: tuple[str, ...] = ()

    @property
    def comment(self) -> str:
        """What a comment right above it, that begins with the stage's name, says of it."""
        return describe(self.comments, self.name)


StageStatement: TypeAlias = (
    ArgStatement
    | EnvStatement
    | LabelStatement
    | MaintainerStatement
    | RunStatement
    | CmdStatement
    | EntrypointStatement
    | CopyStatement
    | HealthcheckStatement
    | ExposeStatement
    | UserStatement
    | VolumeStatement
    | WorkdirStatement
    | StopsignalStatement
    | ShellStatement
    | OnbuildStatement
)


@dataclass(slots=True)
class StageText:
    """One stage as it is written: from a FROM to the next."""

    begin: FromStatement
    statements: list[StageStatement] = field(default_factory=list)


def describe(comments: tuple[str, ...], name: str) -> str:
    """Answer what follows a name at the begin of the first of some comments that has it there; "" = none has."""
    if not name:
        return ""
    return next((one.removeprefix(f"{name} ") for one in comments if one.startswith(f"{name} ")), "")
