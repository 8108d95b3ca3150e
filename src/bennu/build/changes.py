"""`--change` of import and commit: instructions of a Dockerfile applied to a configuration. Pure.

The language is that of builds; what each instruction sets is as moby `builder/dockerfile/dispatchers.go` has it.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bennu.build.dockerfile.expansion import Style, expand, split
from bennu.build.dockerfile.parse import parse_changes
from bennu.build.dockerfile.statements import (
    CmdStatement,
    EntrypointStatement,
    EnvStatement,
    ExposeStatement,
    HealthcheckStatement,
    LabelStatement,
    OnbuildStatement,
    StageStatement,
    StopsignalStatement,
    UserStatement,
    VolumeStatement,
    WorkdirStatement,
)
from bennu.build.plan.draft import ImageDraft
from bennu.build.plan.paths import clean
from bennu.build.plan.ports import read_ports
from bennu.lifecycle.signals import parse_signal

CHANGES: Final = frozenset(
    ("cmd", "entrypoint", "healthcheck", "env", "expose", "label", "onbuild", "stopsignal", "user", "volume", "workdir")
)


def apply_changes(config: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Answer the configuration (Docker's keys) after the instructions. Raises: InvalidParameter in Docker's words."""
    draft = ImageDraft(config={name: copy.copy(value) for name, value in config.items() if value is not None})
    parsed = parse_changes("\n".join(changes).encode(errors="replace"), CHANGES)
    style = Style(escape=parsed.escape)
    command_given = False
    for statement in parsed.statements:
        command_given = command_given or (isinstance(statement, CmdStatement) and bool(statement.words))
        _apply(draft, statement, style)
        if isinstance(statement, EntrypointStatement) and not command_given:
            draft.config.pop("Cmd", None)  # a command belongs to the entrypoint it was written for
    return {**dict.fromkeys(config), **draft.config}


def _apply(draft: ImageDraft, statement: StageStatement, style: Style) -> None:
    config = draft.config

    def put_in(text: str) -> str:
        return expand(text, draft.env, style).text

    match statement:
        case CmdStatement():
            config["Cmd"] = _words(draft, statement)
        case EntrypointStatement():
            draft.set_or_drop("Entrypoint", _words(draft, statement))
        case EnvStatement():
            for name, value in [(put_in(pair.name), put_in(pair.value)) for pair in statement.pairs]:
                draft.set_env(name, value)
        case LabelStatement():
            draft.merge("Labels", {put_in(pair.name): put_in(pair.value) for pair in statement.pairs})
        case ExposeStatement():
            words = [word for text in statement.ports for word in split(text, style, draft.env)]
            ports = [port for word in words for port in read_ports(word, lambda rule, text: None)]
            draft.merge("ExposedPorts", {port: {} for port in ports})
        case VolumeStatement():
            draft.merge("Volumes", {put_in(path): {} for path in statement.paths})
        case UserStatement():
            config["User"] = put_in(statement.user)
        case WorkdirStatement():
            config["WorkingDir"] = clean(put_in(statement.path), config.get("WorkingDir") or "/")
        case StopsignalStatement():
            signal = put_in(statement.signal)
            parse_signal(signal)
            config["StopSignal"] = signal
        case OnbuildStatement():
            config["OnBuild"] = [*config.get("OnBuild", ()), statement.trigger]
        case HealthcheckStatement():
            draft.set_probe(statement.probe)


def _words(draft: ImageDraft, statement: CmdStatement | EntrypointStatement) -> list[str]:
    return draft.in_shell(statement.words) if statement.shell and statement.words else list(statement.words)
