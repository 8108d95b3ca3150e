"""Walks the statements of the stages that a target needs, and makes the graph and the image's configuration. Pure.

What each instruction does, sets and writes into history is as BuildKit of dockerd 28.5 does it; `test_oracle.py` holds
us to what that daemon has built.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from bennu.build.dockerfile.expansion import Style
from bennu.build.dockerfile.failure import DockerfileError
from bennu.build.dockerfile.mounts import MountRequest
from bennu.build.dockerfile.rules import Linter, LintWarning
from bennu.build.dockerfile.statements import (
    ArgStatement,
    CmdStatement,
    CopyStatement,
    EntrypointStatement,
    RunStatement,
    WorkdirStatement,
)
from bennu.build.graph import (
    Files,
    GraphNode,
    HttpSource,
    ImageSource,
    LocalSource,
    Mkdir,
    Scratch,
    SolvedSource,
    replace_sources,
)
from bennu.build.plan.commands import RunPlace, plan_run
from bennu.build.plan.copies import CopyPlace, git_source, plan_copy
from bennu.build.plan.draft import DEFAULT_PATH, ImageDraft
from bennu.build.plan.options import BaseImage, BuildPlan, ImageNeed, PlanError
from bennu.build.plan.paths import clean
from bennu.build.plan.plan_words import NOT_IN_ENV, PlanWords
from bennu.build.plan.read import BuildFile, KnownImages, context_name, context_of, need_of
from bennu.build.plan.remotes import file_name, parse_repository
from bennu.build.plan.settings import take_command, take_setting
from bennu.build.plan.stage_state import StageState, shown
from bennu.build.plan.stages import CONTEXT, Command, Stage
from bennu.errors import InvalidParameter
from bennu.go.printing import quote
from bennu.go.rfc3339 import format_rfc3339
from bennu.images.dockerignore import is_ignored

EPOCH: Final = "SOURCE_DATE_EPOCH"


def make_plan(file: BuildFile, known: KnownImages) -> BuildPlan:
    """Make the plan of a file whose `needed_images` are all known. Raises: PlanError."""
    walk = _PlanWalk(file, known)
    try:
        state = walk.run()
        walk.linter.check()
    except DockerfileError as error:
        raise PlanError(error, walk.linter) from None
    last = replace_sources(state.node, walk.narrowed_contexts())
    warnings = _each_once(walk.linter)
    return BuildPlan(last, _finish(state, file), state.platform, state.base_id, warnings, walk.epoch_ns)


def lint(file: BuildFile, known: KnownImages) -> tuple[tuple[LintWarning, ...], DockerfileError | None]:
    """Answer all warnings of a file whose `needed_images` are known, and why it cannot be built, if it cannot."""
    walk = _PlanWalk(file, known)
    try:
        walk.run()
        walk.linter.check()
    except DockerfileError as error:
        return _each_once(walk.linter), error
    return _each_once(walk.linter), None


def _each_once(linter: Linter) -> tuple[LintWarning, ...]:
    """List warnings; what two words of a line lack is told once."""
    return tuple(dict.fromkeys(linter.warnings))


def _finish(state: StageState, file: BuildFile) -> dict[str, Any]:
    draft = state.draft
    if file.options.labels:
        draft.config["Labels"] = {**draft.config.get("Labels", {}), **file.options.labels}
    if file.options.platform:
        system, architecture, variant = (*file.options.platform.split("/"), "")[:3]
        draft.facts |= {"os": system, "architecture": architecture}
        draft.set_variant(variant)
    return draft.write()


@dataclass(slots=True)
class _PlanWalk:
    """One walk over all stages. `locals`: what is asked of each context that a client sends: its paths."""

    file: BuildFile
    known: KnownImages
    linter: Linter = field(init=False)
    words: PlanWords = field(init=False)
    states: dict[Stage, StageState] = field(default_factory=dict)
    locals: dict[str, set[str]] = field(default_factory=dict)
    nodes: dict[str, LocalSource] = field(default_factory=dict)
    of_local: dict[Stage, str] = field(default_factory=dict)
    epoch_ns: int | None = None

    def __post_init__(self) -> None:
        self.linter = replace(self.file.linter, warnings=list(self.file.linter.warnings))
        self.words = PlanWords(Style(escape=self.file.parsed.escape), self.linter)
        self.epoch_ns = _read_epoch(self.file.options.arguments.get(EPOCH, ""))

    def run(self) -> StageState:
        needed = self.file.needed_stages()
        for stage in needed:
            if stage.text is None or stage.context is not None:
                self.states[stage] = self.begin(stage)
        wanted = set(needed)
        for stage in self.file.table.stages:
            if stage in wanted and stage not in self.states:
                self.states[stage] = self.begin(stage)
                for command in stage.commands:
                    try:
                        self.take(self.states[stage], command)
                    except DockerfileError as error:
                        raise error.at(command.statement.location) from None
                    except InvalidParameter as error:
                        raise DockerfileError(str(error), command.statement.location) from None
        self.use_all(self.file.target)
        return self.states[self.file.target]

    # --- what stages begin with ---------------------------------------------------------------------------------------

    def begin(self, stage: Stage) -> StageState:
        if stage.base is not None:
            return self.begin_on(stage, self.states[stage.base])
        platform = stage.platform or self.file.options.platform or self.file.options.host_platform
        node, draft, base_id = self.base_of(stage, platform)
        if self.epoch_ns is not None:
            draft.created = format_rfc3339(self.epoch_ns)
        state = StageState(stage, node, draft, platform, {}, base_id=base_id)
        if stage.text is not None and stage.context is None and "PATH" not in draft.env:
            draft.set_env("PATH", DEFAULT_PATH)
        for name, value in draft.env.items():
            state.set_env(name, value)
        if folder := draft.config.get("WorkingDir"):
            state.cwd = draft.config["WorkingDir"] = clean(folder)
        state.user = draft.config.get("User", "")
        if isinstance(node, ImageSource) and context_of(self.file, stage) is None:
            state.node = replace(node, name=state.step_name(node.name, total=stage.written_total))
        return state

    def begin_on(self, stage: Stage, base: StageState) -> StageState:
        if base.stage in self.of_local:
            self.of_local[stage] = self.of_local[base.stage]
        draft = base.draft.child()
        state = StageState(stage, base.node, draft, base.platform, dict(base.env), base.cwd, base.user)
        state.env_words = dict(base.env_words)
        state.arguments = dict(base.arguments)
        state.workdir_set = base.workdir_set
        state.base_id = base.base_id
        return state

    def base_of(self, stage: Stage, platform: str) -> tuple[GraphNode, ImageDraft, str]:
        """Answer what a stage without a base among the stages begins with: node, configuration, image id."""
        context = context_of(self.file, stage)
        need = need_of(self.file, stage)
        if need is not None:
            image = self.known[need]
            draft = ImageDraft.of(image.config)
            draft.config.pop("OnBuild", None)
            name = f"FROM {_pinned(need, image)}"
            if context is not None:
                name = f"[context {context_name(stage)}] {need.written}"
            if not (image.config.get("rootfs") or {}).get("diff_ids"):
                return Scratch(platform=platform), draft, image.image_id
            node = ImageSource(
                name=name,
                location=stage.location,
                platform=platform,
                reference=need.reference,
                image_id=image.image_id,
            )
            return node, draft, image.image_id
        if context is None or context.startswith("docker-image:"):
            return Scratch(platform=platform), ImageDraft.empty(platform), ""
        return self.context_node(stage, context, platform)

    def context_node(self, stage: Stage, context: str, platform: str) -> tuple[GraphNode, ImageDraft, str]:
        name = context_name(stage)
        kind, found, rest = context.partition(":")
        empty = ImageDraft.empty(platform)
        if not found:
            raise DockerfileError(f"invalid context specifier {context} for {name}", stage.location)
        if kind == "input" and (solved := self.file.options.solved.get(rest)) is not None:
            node = SolvedSource(name=f"[context {name}] {context}", platform=platform, solved=solved.solved)
            return node, empty if solved.config is None else ImageDraft.of(solved.config), ""
        if kind == "local":
            self.of_local[stage] = rest
            return self.local(rest, f"[context {name}] load from client", platform), empty, ""
        title = f"[context {name}] {context}"
        if (repository := parse_repository(context)) is not None:
            return git_source(repository, title, platform), empty, ""
        if kind in ("http", "https"):
            return HttpSource(name=title, platform=platform, url=context, filename=file_name(context)), empty, ""
        raise DockerfileError(f"unsupported context source {kind} for {name}", stage.location)

    def local(self, context: str, name: str, platform: str) -> GraphNode:
        """Answer the node of a folder that the client sends."""
        if context not in self.nodes:
            self.locals.setdefault(context, set())
            self.nodes[context] = LocalSource(
                name=name,
                platform=platform,
                context=context,
                exclude=self.file.options.excludes.get(context, ()),
            )
        return self.nodes[context]

    def main_context(self, paths: Iterable[str]) -> GraphNode:
        """Answer the build's context; `paths` of it are wanted."""
        if (other := self.file.options.main_context) is not None:
            return other
        node = self.local(CONTEXT, "[internal] load build context", self.file.options.host_platform)
        self.locals[CONTEXT].update(clean(path) for path in paths)
        return node

    def source_of(self, state: StageState, command: Command, number: int, paths: Iterable[str], verb: str) -> GraphNode:
        """Answer what a command takes from: another stage, an image, or the context."""
        source = command.sources[number] if command.sources else None
        if source is None:
            return self.main_context(paths)
        if source not in self.states:
            name = source.given_name or str(source.number)
            if verb == "copy":
                raise DockerfileError(
                    f"cannot copy from stage {quote(name)}, it needs to be defined before current stage "
                    f"{quote(state.stage.name)}"
                )
            raise DockerfileError(
                f"cannot mount from stage {quote(name)}, stage needs to be defined before current command"
            )
        if (context := self.of_local.get(source)) is not None:
            self.locals[context].update(clean(path) for path in paths)
        return self.states[source].node

    def use_all(self, stage: Stage) -> None:
        if (context := self.of_local.get(stage)) is not None:
            self.locals[context].add("/")

    def narrowed_contexts(self) -> dict[GraphNode, GraphNode]:
        """Answer each context with the paths that are wanted of it, now that they are known; none means all."""
        return {
            self.nodes[context]: replace(self.nodes[context], follow=tuple(sorted(path.lstrip("/") for path in paths)))
            for context, paths in self.locals.items()
            if "/" not in paths
        }

    # --- variables ----------------------------------------------------------------------------------------------------

    # --- instructions -------------------------------------------------------------------------------------------------

    def take(self, state: StageState, command: Command) -> None:
        match command.statement:
            case RunStatement() as run:
                self.take_run(state, run, command)
            case CopyStatement() as copy:
                self.take_copy(state, copy, command)
            case ArgStatement() as arg:
                self.take_arg(state, arg)
            case WorkdirStatement() as workdir:
                self.take_workdir(state, workdir, is_trigger=command.is_trigger)
            case CmdStatement() | EntrypointStatement() as one:
                take_command(self.words, state, one)
            case other:
                take_setting(self.words, state, other)

    def take_run(self, state: StageState, run: RunStatement, command: Command) -> None:
        if state.stage in self.of_local:
            self.use_all(state.stage)

        def source(number: int, request: MountRequest) -> GraphNode:
            return self.source_of(state, command, number, [request.source], "mount")

        place = RunPlace(
            options=self.file.options,
            escape=self.file.parsed.escape,
            expand=lambda text: self.words.expand(state, text, run),
            source=source,
            no_cache=self.is_uncached(state),
            is_trigger=command.is_trigger,
        )
        plan_run(state, run, place)

    def take_copy(self, state: StageState, copy: CopyStatement, command: Command) -> None:
        inner = Style(no_quotes=True)
        copy = replace(
            copy,
            chown=self.words.expand(state, copy.chown, copy),
            chmod=self.words.expand(state, copy.chmod, copy),
            checksum=self.words.expand(state, copy.checksum, copy),
            paths=tuple(self.words.expand(state, path, copy) for path in copy.paths),
            destination=self.words.expand(state, copy.destination, copy),
            documents=tuple(
                replace(one, content=self.words.expand(state, one.text, copy, inner), tabs_go=False)
                if one.expand
                else one
                for one in copy.documents
            ),
        )
        local_paths = [path for path in copy.paths if not path.startswith(("http://", "https://"))]
        needs_source = bool(copy.source or any(parse_repository(path) is None for path in local_paths))
        place = CopyPlace(
            source=self.source_of(state, command, 0, local_paths, "copy") if needs_source else Scratch(),
            escape=self.file.parsed.escape,
            no_cache=self.is_uncached(state),
            is_trigger=command.is_trigger,
            warn_ignored=lambda path: self.lint_ignored(copy, path),
        )
        plan_copy(state, copy, place)

    def lint_ignored(self, copy: CopyStatement, path: str) -> None:
        linter = self.linter
        if copy.source or not linter.hears("CopyIgnoredFile"):
            return
        if is_ignored("\n".join(self.file.options.excludes.get(CONTEXT, ())), path):
            linter.warn("CopyIgnoredFile", copy.location, "Add" if copy.is_add else "Copy", path)

    def is_uncached(self, state: StageState) -> bool:
        options = self.file.options
        return options.no_cache or state.stage.given_name in {name.lower() for name in options.no_cache_stages}

    def take_arg(self, state: StageState, arg: ArgStatement) -> None:
        written = []
        for one in arg.definitions:
            self.words.lint_secret("ARG", one.name, arg)
            value = self.file.options.arguments.get(one.name)
            if value is None:
                value = (
                    self.file.globals.get(one.name) if one.value is None else self.words.expand(state, one.value, arg)
                )
            if value is not None and one.name not in NOT_IN_ENV:
                state.set_env(one.name, value)
            state.arguments[one.name] = value
            written.append(one.name if value is None else f"{one.name}={value}")
        state.draft.commit("ARG " + " ".join(written))

    def take_workdir(self, state: StageState, workdir: WorkdirStatement, *, is_trigger: bool) -> None:
        path = self.words.expand(state, workdir.path, workdir)
        if not state.workdir_set and not path.startswith("/"):
            self.linter.warn("WorkdirRelativePath", workdir.location, path)
        state.workdir_set = True
        state.cwd = state.draft.config["WorkingDir"] = clean(path, state.cwd)
        if state.cwd != "/":
            name = shown(workdir.code, state.env, self.words.style)
            state.node = Files(
                name=state.step_name(name, is_trigger=is_trigger),
                location=workdir.location,
                platform=state.platform,
                base=state.node,
                actions=(Mkdir(path=state.cwd, user=state.user, created_ns=self.epoch_ns),),
            )
        state.draft.commit(f"WORKDIR {state.cwd}", layer=state.cwd != "/")


def _pinned(need: ImageNeed, image: BaseImage) -> str:
    has_digest = "@" in need.reference or not image.digest
    return need.reference if has_digest else f"{need.reference}@{image.digest}"


def _read_epoch(text: str) -> int | None:
    """Read SOURCE_DATE_EPOCH, seconds since 1970. Raises: DockerfileError."""
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,11}", text):
        raise DockerfileError(f"invalid SOURCE_DATE_EPOCH: {text}")
    return int(text) * 10**9
