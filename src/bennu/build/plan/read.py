"""Reads a Dockerfile for a build: global arguments, bases of stages, the target; then the images it needs. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from bennu.build.dockerfile.expansion import Expanded, Style, expand
from bennu.build.dockerfile.failure import DockerfileError, suggest
from bennu.build.dockerfile.lines import detect_syntax
from bennu.build.dockerfile.parse import ParsedDockerfile, parse
from bennu.build.dockerfile.rules import Linter, read_checks
from bennu.build.dockerfile.statements import ArgStatement, FromStatement, MaintainerStatement, StageText
from bennu.build.plan.options import BaseImage, ImageNeed, PlanError, PlanOptions
from bennu.build.plan.stages import (
    SCRATCH,
    Stage,
    StageTable,
    parsed_stages,
    reachable,
    read_platform,
    recorded_triggers,
)
from bennu.errors import InvalidParameter
from bennu.go.printing import quote
from bennu.images.reference import parse_reference

IMAGE_CONTEXT: Final = "docker-image:"
OURS: Final = re.compile(
    r"(?:docker\.io/)?docker/dockerfile(?:-upstream)?(?::[A-Za-z0-9_][\w.-]*)?(?:@sha256:[0-9a-f]+)?\Z"
)
CHECKS: Final = "BUILDKIT_DOCKERFILE_CHECK"
RESERVED: Final = ("context", "scratch")
COMMON_IMAGES: Final = ("alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora")
KnownImages = Mapping[ImageNeed, BaseImage]


@dataclass(eq=False, slots=True)
class BuildFile:
    """A Dockerfile that is being planned; its stages learn of their ONBUILD instructions as images become known."""

    options: PlanOptions
    parsed: ParsedDockerfile
    globals: Mapping[str, str]
    table: StageTable
    target: Stage
    linter: Linter
    all_stages: bool

    def needed_stages(self) -> list[Stage]:
        """List the stages to be built and those that stand for images, each after what it needs."""
        lasts = self.table.stages if self.all_stages else [self.target]
        return list(dict.fromkeys(stage for last in lasts for stage in reachable(last)))


def read_file(source: bytes, options: PlanOptions, *, all_stages: bool = False) -> BuildFile:
    """Read a Dockerfile; with `all_stages` those that the target does not need count too. Raises: PlanError."""
    for name, value in (*options.arguments.items(), *options.labels.items()):
        if "\0" in name + value:
            raise DockerfileError(f"the value of {quote(name)} holds a byte 0")
    if options.platform:
        options = replace(options, platform=_read_target_platform(options))
    if (syntax := detect_syntax(source)) and not OURS.match(syntax):
        raise DockerfileError(f"the frontend {syntax} is not available: only docker/dockerfile is built in")
    parsed = parse(source)
    linter = read_checks(options.arguments.get(CHECKS, parsed.directives.get("check", "")))
    try:
        return _read_stages(parsed, options, linter, all_stages=all_stages)
    except DockerfileError as error:
        raise PlanError(error, linter) from None


def _read_stages(parsed: ParsedDockerfile, options: PlanOptions, linter: Linter, *, all_stages: bool) -> BuildFile:
    texts = parsed_stages(parsed)
    _lint_text(parsed, linter)
    defaults = _platform_arguments(options, options.target or texts[-1].begin.name)
    style = Style(escape=parsed.escape)
    _lint_defaults(parsed, defaults, style, linter)
    arguments = _global_arguments(parsed.arguments, defaults, style, options.arguments)
    declared = {*arguments, *(one.name for statement in parsed.arguments for one in statement.definitions)}
    table = StageTable(options, parsed.escape, arguments)
    for text in texts:
        base = _expand_base(text.begin, arguments, declared, style, linter)
        table.add(text, base, _expand_platform(text.begin, arguments, declared, style, options, linter))
    target = table.find_target()
    table.link()
    file = BuildFile(options, parsed, arguments, table, target, linter, all_stages)
    for stage in [*table.stages, *table.of_images.values()]:
        if stage.base is None and stage.image != SCRATCH and stage.context is None:
            _full_reference(stage)
    return file


def needed_images(file: BuildFile, known: KnownImages) -> list[ImageNeed]:
    """List images that are needed and not known; to be asked again when they are, until none is missing.

    Raises: DockerfileError for an ONBUILD instruction of an image that may not be in this build.
    """
    while True:
        stages = file.needed_stages()
        needs = [need for need in (need_of(file, stage) for stage in stages) if need]
        if missing := [need for need in dict.fromkeys(needs) if need not in known]:
            return missing
        waiting = [stage for stage in stages if not stage.triggers_read and stage.text and stage.context is None]
        if not waiting:
            return []
        for stage in waiting:
            file.table.add_triggers(stage, _triggers(file, stage, known))


def _triggers(file: BuildFile, stage: Stage, known: KnownImages) -> list[str]:
    if stage.base is not None:
        return recorded_triggers(stage.base) if stage.base.context is None else []
    if (need := need_of(file, stage)) is None:
        return []
    config = known[need].config.get("config") or {}
    return list(config.get("OnBuild") or ())


def need_of(file: BuildFile, stage: Stage) -> ImageNeed | None:
    """Answer the image that a stage begins with; None: it begins with something else. Raises: DockerfileError."""
    if stage.base is not None or (stage.image == SCRATCH and stage.context is None):
        return None
    platform = stage.platform or file.options.platform or file.options.host_platform
    context = context_of(file, stage)
    if context is None:
        full = _full_reference(stage)
        return ImageNeed(full, platform, stage.image, f"[internal] load metadata for {full}", stage.location)
    if not context.startswith(IMAGE_CONTEXT):
        return None
    written = context.removeprefix(IMAGE_CONTEXT).removeprefix("//")
    if written == SCRATCH:
        return None
    name = f"[context {context_name(stage)}] load metadata for {written}"
    return ImageNeed(_full(written), platform, written, name, stage.location)


def context_of(file: BuildFile, stage: Stage) -> str | None:
    """Answer the named context that a stage, or what it stands on, is replaced by; None: it is as it is written."""
    if stage.context is not None or stage.base is not None or stage.image == SCRATCH:
        return stage.context
    return file.table.context_of(stage.image, stage.platform)


def context_name(stage: Stage) -> str:
    """Answer the name by which a stage's named context is shown."""
    if stage.context is not None:
        return stage.given_name
    return str(parse_reference(stage.image)).removesuffix(":latest")


def missing_image(file: BuildFile, need: ImageNeed, reason: str) -> DockerfileError:
    """Answer the error for a need that nothing was found for, with what was perhaps meant."""
    names = [stage.name for stage in file.table.stages if stage.name]
    options = [*names, *(one for image in COMMON_IMAGES for one in (image, f"{image}:latest"))]
    return DockerfileError(f"{need.written}: {reason}{suggest(need.written, options)}", need.location)


def _full_reference(stage: Stage) -> str:
    try:
        return _full(stage.image)
    except InvalidParameter as error:
        message = f"failed to parse stage name {quote(stage.image)}: {error}"
        raise DockerfileError(message, stage.location) from None


def _full(text: str) -> str:
    reference = parse_reference(text).tagged()
    tag = f":{reference.tag}" if reference.tag else ""
    return reference.full_name + tag + (f"@{reference.digest}" if reference.digest else "")


def _read_target_platform(options: PlanOptions) -> str:
    try:
        return read_platform(options.platform, options.host_platform)
    except ValueError as error:
        raise DockerfileError(f"failed to parse platform {options.platform}: {error}") from None


# --- arguments of FROM ------------------------------------------------------------------------------------------------


def _platform_arguments(options: PlanOptions, target: str) -> dict[str, str]:
    build, wanted = options.host_platform, options.platform or options.host_platform
    found = {"TARGETSTAGE": target or "default"}
    for prefix, platform in (("BUILD", build), ("TARGET", wanted)):
        system, architecture, variant = (*platform.split("/"), "")[:3]
        found |= {
            f"{prefix}PLATFORM": platform,
            f"{prefix}OS": system,
            f"{prefix}OSVERSION": "",
            f"{prefix}ARCH": architecture,
            f"{prefix}VARIANT": variant,
        }
    return {name: options.arguments.get(name, value) for name, value in found.items()}


def _global_arguments(
    statements: Iterable[ArgStatement], defaults: Mapping[str, str], style: Style, given: Mapping[str, str]
) -> dict[str, str]:
    """Answer the arguments that FROM may use. Raises: DockerfileError."""
    found = dict(defaults)
    for statement in statements:
        for one in statement.definitions:
            try:
                value = given.get(one.name)
                if value is None and one.value is not None:
                    value = expand(one.value, found, style).text
            except DockerfileError as error:
                raise error.at(statement.location) from None
            if value is not None:
                found[one.name] = value
    return found


def _expand_base(
    begin: FromStatement, arguments: Mapping[str, str], declared: set[str], style: Style, linter: Linter
) -> Expanded:
    try:
        base = expand(begin.base, arguments, style)
    except DockerfileError as error:
        raise error.at(begin.location) from None
    _lint_undeclared(base, declared, begin, linter)
    if not base.text:
        raise DockerfileError(f"base name ({begin.base}) should not be blank", begin.location)
    return base


def _expand_platform(
    begin: FromStatement,
    arguments: Mapping[str, str],
    declared: set[str],
    style: Style,
    options: PlanOptions,
    linter: Linter,
) -> str:
    if not begin.platform:
        return ""
    try:
        found = expand(begin.platform, arguments, style)
    except DockerfileError as error:
        raise DockerfileError(f"failed to process arguments for platform : {error}", begin.location) from None
    _lint_undeclared(found, declared, begin, linter)
    if found.used == ("TARGETPLATFORM",) and not found.missing and found.text == arguments["TARGETPLATFORM"]:
        linter.warn("RedundantTargetPlatform", begin.location, begin.platform)
    hint = next(filter(None, (suggest(name, arguments) for name in found.missing)), "")
    if not found.text:
        raise DockerfileError(f"empty platform value from expression {begin.platform}{hint}", begin.location)
    try:
        platform = read_platform(found.text, options.host_platform)
    except ValueError as error:
        message = f"failed to parse platform {begin.platform}: {error}{hint}"
        raise DockerfileError(message, begin.location) from None
    system, architecture = platform.split("/")[:2]
    if not found.used and not found.missing and system not in begin.name and architecture not in begin.name:
        linter.warn("FromPlatformFlagConstDisallowed", begin.location, found.text)
    return platform


# --- rules that need no image -----------------------------------------------------------------------------------------


def _lint_undeclared(found: Expanded, declared: set[str], begin: FromStatement, linter: Linter) -> None:
    for name in found.missing:
        if name not in declared:
            linter.warn("UndefinedArgInFrom", begin.location, name, suggest(name, sorted(declared)))


def _lint_text(parsed: ParsedDockerfile, linter: Linter) -> None:
    for location in parsed.empty_continuations:
        linter.warn("NoEmptyContinuation", location)
    for stage in parsed.stages:
        _lint_from(stage.begin, linter)
        for statement in stage.statements:
            if isinstance(statement, MaintainerStatement):
                linter.warn("MaintainerDeprecated", statement.location)
    seen: set[str] = set()
    for name, location in ((one.begin.name, one.begin.location) for one in parsed.stages if one.begin.name):
        if name in RESERVED:
            linter.warn("ReservedStageName", location, name)
        if name in seen:
            linter.warn("DuplicateStageName", location, name)
        seen.add(name)
    _lint_casing(parsed.stages, linter)


def _lint_from(begin: FromStatement, linter: Linter) -> None:
    if begin.named_as is None:
        return
    word, name = begin.named_as
    if name != name.lower():
        linter.warn("StageNameCasing", begin.location, name)
    case = _case_of(begin.word)
    if case and word != (word.lower() if case == "lowercase" else word.upper()):
        linter.warn("FromAsCasing", begin.location, word, begin.word)


def _case_of(word: str) -> str:
    return "lowercase" if word == word.lower() else "uppercase" if word == word.upper() else ""


def _lint_casing(stages: Iterable[StageText], linter: Linter) -> None:
    words = [(one.word, one.location) for stage in stages for one in (stage.begin, *stage.statements)]
    cases = [_case_of(word) for word, _ in words]
    wanted = "lowercase" if cases.count("lowercase") > cases.count("uppercase") else "uppercase"
    for (word, location), case in zip(words, cases, strict=True):
        if case != wanted:
            linter.warn("ConsistentInstructionCasing", location, word, wanted)


def _lint_defaults(parsed: ParsedDockerfile, defaults: Mapping[str, str], style: Style, linter: Linter) -> None:
    """Warn of images whose names are wrong when no argument is given."""
    try:
        arguments = _global_arguments(parsed.arguments, defaults, style, {})
        for stage in parsed.stages:
            name = expand(stage.begin.base, arguments, style).text
            try:
                parse_reference(name)
            except InvalidParameter:
                linter.warn("InvalidDefaultArgInFrom", stage.begin.location, stage.begin.base)
    except DockerfileError:
        return
