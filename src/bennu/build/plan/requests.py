"""What may be asked of a Dockerfile instead of a build: `docker build --check`, `--call outline|targets`. Pure.

Answers are the JSON of BuildKit's subrequests (`frontend/subrequests/`), which clients print.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bennu.build.dockerfile.expansion import Style, expand
from bennu.build.dockerfile.failure import DockerfileError
from bennu.build.dockerfile.parse import parse
from bennu.build.dockerfile.rules import LintWarning
from bennu.build.dockerfile.statements import ArgStatement, ArgumentDefinition
from bennu.build.graph import Exec, Location, MountKind, walk
from bennu.build.plan.options import BuildPlan
from bennu.build.plan.read import BuildFile
from bennu.build.plan.stages import Stage, reachable

LINT: Final = "frontend.lint"
OUTLINE: Final = "frontend.outline"
TARGETS: Final = "frontend.targets"
REQUESTS: Final = (LINT, OUTLINE, TARGETS)
VERSION: Final = "1.0.0"
Answer = Mapping[str, bytes]


def answer_targets(source: bytes) -> Answer:
    """List the stages of a Dockerfile. Raises: DockerfileError."""
    stages = parse(source).stages
    targets = [
        _said(
            name=stage.begin.name,
            default=stage is stages[-1],
            description=stage.begin.comment,
            base=stage.begin.base,
            platform=stage.begin.platform,
            location=_where(stage.begin.location),
        )
        for stage in stages
    ]
    text = "".join(f"{one.get('name', '')}{' (default)' if one.get('default') else ''}\n" for one in targets)
    return _answer({"targets": targets, "sources": [base64.b64encode(source).decode()]}, text)


def answer_lint(
    name: str, source: bytes, warnings: Sequence[LintWarning], error: DockerfileError | None = None
) -> Answer:
    """Tell what was found in a Dockerfile, and what made it fail."""
    found: dict[str, Any] = {
        "warnings": [
            {
                "ruleName": one.rule.name,
                "description": one.rule.description,
                "url": one.rule.url,
                "detail": one.message,
                "location": _where(one.location),
            }
            for one in warnings
        ],
        "sources": [{"filename": name, "data": base64.b64encode(source).decode(), "language": "Dockerfile"}],
    }
    if error is not None:
        found["buildError"] = {"message": str(error), "location": _where(error.location) if error.location else {}}
    text = "".join(f"\nWARNING: {one.rule.name} - {one.rule.url}\n{one.message}\n" for one in warnings)
    failed = bool(warnings) or error is not None
    return {**_answer(found, text), "result.statuscode": b"1" if failed else b"0"}


def answer_outline(file: BuildFile, source: bytes, plan: BuildPlan) -> Answer:
    """Tell what the target of a build can be given: arguments, secrets, agents."""
    begin = file.target.text.begin if file.target.text else None
    outline = _said(
        name=begin.name if begin else "",
        description=begin.comment if begin else "",
        args=sorted(_arguments(file), key=_line_of),
        secrets=_lent(plan, MountKind.SECRET),
        ssh=_lent(plan, MountKind.SSH),
        sources=[base64.b64encode(source).decode()],
    )
    lines = [f"{one['name']}\t{one.get('value', '')}\n" for one in outline.get("args", ())]
    return _answer(outline, "".join(lines))


def _arguments(file: BuildFile) -> list[dict[str, Any]]:
    """List the arguments that the target or what it needs uses; of one name the nearest to the target."""
    style = Style(escape=file.parsed.escape)
    globals: dict[str, tuple[ArgumentDefinition, Location, tuple[str, ...]]] = {}
    for statement in file.parsed.arguments:
        for one in statement.definitions:
            needs = expand(one.value or "", file.globals, style).used
            globals[one.name] = (one, statement.location, needs)
    found: dict[str, dict[str, Any]] = {}
    used: list[str] = []
    for stage in reversed(reachable(file.target)):
        used += _used_by_from(file, stage, style)
        scope: dict[str, str] = {}
        for argument in (one.statement for one in stage.commands if isinstance(one.statement, ArgStatement)):
            for one in argument.definitions:
                given = file.options.arguments.get(one.name)
                if one.value is None and given is None and one.name in file.globals:
                    used.append(one.name)
                    scope[one.name] = file.globals[one.name]
                    continue
                value = given if given is not None else expand(one.value or "", scope, style).text
                scope[one.name] = value
                found.setdefault(one.name, _argument(one, value, argument.location))
    seen: set[str] = set()
    while used:
        name = used.pop()
        if name in globals and name not in seen:
            definition, location, needs = globals[name]
            found.setdefault(name, _argument(definition, file.globals.get(name, ""), location))
            used += needs
        seen.add(name)
    return list(found.values())


def _used_by_from(file: BuildFile, stage: Stage, style: Style) -> tuple[str, ...]:
    if stage.text is None:
        return ()
    begin = stage.text.begin
    return tuple(name for word in (begin.base, begin.platform) for name in expand(word, file.globals, style).used)


def _argument(definition: ArgumentDefinition, value: str, location: Location) -> dict[str, Any]:
    return _said(name=definition.name, description=definition.comment, value=value, location=_where(location))


def _lent(plan: BuildPlan, kind: MountKind) -> list[dict[str, Any]]:
    """List the secrets or agents that steps ask for."""
    found: dict[str, dict[str, Any]] = {}
    for node in walk(plan.last):
        for mount in node.mounts if isinstance(node, Exec) else ():
            if mount.kind is kind:
                where = _where(node.location) if node.location else None
                found.setdefault(mount.id, _said(name=mount.id, required=mount.required, location=where))
    return sorted(found.values(), key=_line_of)


def _line_of(entry: Mapping[str, Any]) -> int:
    return int(entry["location"]["ranges"][0]["start"]["line"]) if "location" in entry else 0


def _where(location: Location) -> dict[str, Any]:
    lines = range(location.first, location.last + 1)
    return {"ranges": [{"start": {"line": line}, "end": {"line": line}} for line in lines]}


def _said(**fields: Any) -> dict[str, Any]:
    """Leave out what says nothing."""
    return {name: value for name, value in fields.items() if value}


def _answer(value: object, text: str) -> dict[str, bytes]:
    whole = json.dumps(value, indent=2, ensure_ascii=False).encode(errors="replace")
    return {"result.json": whole, "result.txt": text.encode(errors="replace"), "version": VERSION.encode()}
