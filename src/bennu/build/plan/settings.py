"""What instructions that run nothing set in the image's configuration, and write into its history. Pure."""

from collections.abc import Sequence

from bennu.build.dockerfile.expansion import split
from bennu.build.dockerfile.failure import DockerfileError
from bennu.build.dockerfile.statements import (
    CmdStatement,
    EntrypointStatement,
    EnvStatement,
    ExposeStatement,
    HealthcheckStatement,
    LabelStatement,
    MaintainerStatement,
    OnbuildStatement,
    ProbeSettings,
    ShellStatement,
    StageStatement,
    StopsignalStatement,
    UserStatement,
    VolumeStatement,
)
from bennu.build.plan.plan_words import PlanWords
from bennu.build.plan.ports import read_ports
from bennu.build.plan.stage_state import StageState
from bennu.go.duration import format_duration
from bennu.go.printing import quote
from bennu.lifecycle.signals import parse_signal


def take_command(words: PlanWords, state: StageState, one: CmdStatement | EntrypointStatement) -> None:
    field_name = "Cmd" if isinstance(one, CmdStatement) else "Entrypoint"
    words.lint_once(state, one)
    draft = state.draft
    if one.shell and not draft.config.get("Shell"):
        words.linter.warn("JSONArgsRecommended", one.location, one.word)
    argv = draft.in_shell(one.words) if one.shell else list(one.words)
    draft.set_or_drop(field_name, argv)
    if field_name == "Cmd":
        draft.config["ArgsEscaped"] = True
    elif "CMD" not in state.set_at:
        draft.config.pop("Cmd", None)
    draft.commit(f"{field_name.upper()} {_quoted_list(argv)}")


def take_setting(words: PlanWords, state: StageState, statement: StageStatement) -> None:
    draft = state.draft
    match statement:
        case EnvStatement() | LabelStatement():
            _take_pairs(words, state, statement)
        case UserStatement():
            state.user = words.expand(state, statement.user, statement)
            draft.set_or_drop("User", state.user)
            draft.commit(f"USER {state.user}")
        case ExposeStatement():
            _take_expose(words, state, statement)
        case VolumeStatement():
            paths = [words.expand(state, path, statement) for path in statement.paths]
            if "" in paths:
                raise DockerfileError("VOLUME specified can not be an empty string")
            draft.merge("Volumes", {path: {} for path in paths})
            draft.commit(f"VOLUME [{' '.join(paths)}]")
        case StopsignalStatement():
            signal = words.expand(state, statement.signal, statement)
            parse_signal(signal)
            draft.config["StopSignal"] = signal
            draft.commit(f"STOPSIGNAL {signal}")
        case ShellStatement():
            draft.config["Shell"] = list(statement.words)
            draft.commit(f"SHELL [{' '.join(statement.words)}]")
        case HealthcheckStatement():
            words.lint_once(state, statement)
            draft.set_probe(statement.probe)
            draft.commit(f"HEALTHCHECK {_probe_text(statement.probe)}")
        case MaintainerStatement():
            draft.facts["author"] = statement.maintainer
            draft.commit(f"MAINTAINER {statement.maintainer}")
        case OnbuildStatement():
            draft.config["OnBuild"] = [*draft.config.get("OnBuild", ()), statement.trigger]
        case _:
            raise AssertionError(statement.word)


def _take_pairs(words: PlanWords, state: StageState, statement: EnvStatement | LabelStatement) -> None:
    is_env = isinstance(statement, EnvStatement)
    pairs = words.expand_pairs(state, statement.pairs, statement)
    for pair, (name, value) in zip(statement.pairs, pairs, strict=True):
        if pair.legacy:
            words.linter.warn("LegacyKeyValueFormat", statement.location, statement.word)
        if is_env:
            words.lint_secret("ENV", name, statement)
            state.set_env(name, value)
            state.draft.set_env(name, value)
        else:
            state.draft.merge("Labels", {name: value})
    state.draft.commit(" ".join(["ENV" if is_env else "LABEL", *(f"{name}={value}" for name, value in pairs)]))


def _take_expose(words: PlanWords, state: StageState, statement: ExposeStatement) -> None:
    exposed = [word for text in statement.ports for word in split(text, words.style, state.env)]

    def warn(rule: str, text: str) -> None:
        words.linter.warn(rule, statement.location, text)

    ports = [port for word in exposed for port in read_ports(word, warn)]
    state.draft.merge("ExposedPorts", {port: {} for port in ports})
    state.draft.commit(f"EXPOSE [{' '.join(ports)}]")


def _quoted_list(words: Sequence[str]) -> str:
    return f"[{' '.join(map(quote, words))}]"


def _probe_text(probe: ProbeSettings) -> str:
    """Write a HEALTHCHECK as Go's `%q` writes its fields: the number of retries becomes a letter."""
    times = (probe.interval_ns, probe.timeout_ns, probe.start_period_ns, probe.start_interval_ns)
    written = " ".join(quote(format_duration(time_ns)) for time_ns in times)
    return f"&{{{_quoted_list(probe.test)} {written} {_quoted_letter(probe.retries)}}}"


def _quoted_letter(number: int) -> str:
    letter = chr(number) if number < 0x110000 and not 0xD800 <= number < 0xE000 else "\ufffd"
    inside = quote(letter)[1:-1]
    if inside.startswith("\\u00"):  # where Go writes less of a letter than of a text
        inside = f"\\x{number:02x}"
    return "'\\''" if letter == "'" else "'\"'" if letter == '"' else f"'{inside}'"
