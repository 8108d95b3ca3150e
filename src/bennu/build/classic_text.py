"""Tells of a build in the words of Docker's classic builder, which tools look for.

Steps are told in the order of the Dockerfile, one after the other, whatever runs at the same time: what a later one
prints is kept until its turn. Those that the result does not need are passed over. A step that made nothing of its own
(ENV, LABEL, …) is as cached as the one before it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from bennu.build.dockerfile.parse import ParsedDockerfile
from bennu.build.dockerfile.statements import CopyStatement, FromStatement, RunStatement, Statement
from bennu.build.graph import Exec, GraphNode, ImageSource, digests, walk
from bennu.build.request import BuildStepFailed
from bennu.build.vertices import Vertex, VertexLog, VertexStatus, VertexWarning
from bennu.errors import BennuError, InvalidParameter

NOT_FOUND: Final = re.compile(r': "/?(.*)": not found\Z')
NOT_STARTED: Final = "runc run failed: "
PARSE_ERROR: Final = "dockerfile parse error"
SHORT: Final = 12


@dataclass(slots=True)
class _Step:
    statement: Statement
    vertices: set[str] = field(default_factory=set)  # of those still to end
    own: str = ""  # the digest of the last one
    is_needed: bool = False
    base_id: str = ""
    is_cached: bool = True
    is_begun: bool = False
    is_running: bool = False
    kept: list[str] = field(default_factory=list)  # what it printed before its turn


class ClassicText:
    """A progress whose news go out as text, through `say`."""

    def __init__(self, say: Callable[[str], None], labels: Mapping[str, str], target: str, *, removes: bool) -> None:
        """Make one. `removes`: say of containers that they are removed, as dockerd does only if it was asked to."""
        self._say = say
        self._labels = labels
        self._target = target.lower()
        self._removes = removes
        self._steps: list[_Step] = []
        self._at: dict[str, list[_Step]] = {}  # by vertex; stages may begin from the same image
        self._now = 0
        self._last_cached: bool | None = None  # of the steps of this stage; None: none has made anything yet
        self._last_words: dict[str, str] = {}
        self._nodes: dict[str, GraphNode] = {}

    # --- the plan -----------------------------------------------------------------------------------------------------

    def plan(self, dockerfile: ParsedDockerfile, last: GraphNode) -> None:
        """Hear which steps there are, and which vertices are theirs."""
        for stage in dockerfile.stages:
            self._steps += [_Step(statement) for statement in (stage.begin, *stage.statements)]
            if self._target and self._target in (stage.begin.name, str(dockerfile.stages.index(stage))):
                break
        by_place = {step.statement.location: step for step in self._steps}
        of = digests(last)
        for node in walk(last):
            self._nodes[of[node]] = node
            step = by_place.get(node.location) if node.location is not None else None
            if step is None:
                continue
            step.vertices.add(of[node])
            step.own = of[node]
            self._at.setdefault(of[node], []).append(step)
            if isinstance(node, ImageSource):
                step.base_id = node.image_id
        self._mark_needed(dockerfile)
        self._advance()

    def _mark_needed(self, dockerfile: ParsedDockerfile) -> None:
        """Mark the steps of stages that something of is run, and of the last."""
        stage: list[_Step] = []
        for step in [*self._steps, None]:
            if step is None or isinstance(step.statement, FromStatement):
                if stage and (step is None or any(one.vertices for one in stage) or self._is_named(stage, dockerfile)):
                    for one in stage:
                        one.is_needed = True
                stage = []
            if step is not None:
                stage.append(step)

    def _is_named(self, stage: list[_Step], dockerfile: ParsedDockerfile) -> bool:
        begin = stage[0].statement
        names = {other.begin.base.lower() for other in dockerfile.stages}
        return isinstance(begin, FromStatement) and bool(begin.name) and begin.name in names

    # --- what happens -------------------------------------------------------------------------------------------------

    def vertex(self, vertex: Vertex) -> None:
        for step in self._at.get(vertex.digest, ()) if not vertex.error else ():
            if vertex.completed_ns is not None:
                step.is_cached = step.is_cached and vertex.cached
                step.vertices.discard(vertex.digest)
            elif vertex.started_ns is not None and isinstance(step.statement, RunStatement) and not step.is_running:
                step.is_running = True
                self._print(step, f" ---> Running in {_short(step.own)}\n")
        self._advance()

    def status(self, status: VertexStatus) -> None: ...

    def log(self, log: VertexLog) -> None:
        text = log.data.decode(errors="replace")
        self._last_words[log.vertex] = text
        for step in self._at.get(log.vertex, ()):
            self._print(step, text)

    def _print(self, step: _Step, text: str) -> None:
        """Tell what a step says, now or when its turn comes."""
        if step.is_begun:
            self._say(text)
        else:
            step.kept.append(text)

    def warning(self, warning: VertexWarning) -> None: ...

    def _advance(self) -> None:
        """Tell all that can be told now."""
        while self._now < len(self._steps):
            step = self._steps[self._now]
            if not step.is_needed:
                self._now += 1
                continue
            if not step.is_begun:
                self._begin(step)
            if step.vertices:
                return
            self._end(step)
            self._now += 1

    def _begin(self, step: _Step) -> None:
        step.is_begun = True
        total = len(self._steps) + bool(self._labels)
        self._say(f"Step {self._now + 1}/{total} : {step.statement.code}")
        self._say("\n")
        for text in step.kept:
            self._say(text)
        step.kept.clear()

    def _end(self, step: _Step) -> None:
        if isinstance(step.statement, FromStatement):
            self._last_cached = None
            if step.base_id:
                self._say(f" ---> {_short(step.base_id)}\n")
            return
        if step.own:
            self._last_cached = step.is_cached and self._last_cached is not False
        if self._last_cached:
            self._say(" ---> Using cache\n")
        if step.is_running and self._removes:
            self._say(f" ---> Removed intermediate container {_short(step.own)}\n")
        if step.own:
            self._say(f" ---> {_short(step.own)}\n")

    def end(self) -> None:
        """Tell that all went well, as far as the labels that a client adds are a step."""
        if self._labels:
            total = len(self._steps) + 1
            words = " ".join(f"{name}={value}" for name, value in self._labels.items())
            self._say(f"Step {total}/{total} : LABEL {words}")
            self._say("\n")

    # --- failures -----------------------------------------------------------------------------------------------------

    def explain(self, error: BuildStepFailed) -> BennuError:
        """Answer the same failure in the classic builder's words, after telling which step it was.

        What is wrong with the Dockerfile is known before any step, and is the client's fault.
        """
        step = next(iter(self._at.get(error.vertex, ())), None)
        if step is not None and not step.is_begun:
            self._now = self._steps.index(step)
            self._begin(step)
        words = self._words(error, step)
        if error.location is not None and not error.vertex:
            return InvalidParameter(words)
        return BuildStepFailed(words, code=error.code, location=error.location, vertex=error.vertex)

    def _words(self, error: BuildStepFailed, step: _Step | None) -> str:
        message = str(error)
        node = self._nodes.get(error.vertex)
        if isinstance(node, Exec) and error.code is not None:
            said = self._last_words.get(error.vertex, "").strip()
            if said.startswith(NOT_STARTED):
                reason = said.removeprefix(NOT_STARTED)
                return (
                    "failed to create task for container: failed to create shim task: OCI runtime create failed: runc "
                    f"create failed: {reason}"
                )
            return f"The command '{node.command.rstrip()}' returned a non-zero code: {error.code}"
        if step is not None and isinstance(step.statement, CopyStatement) and (match := NOT_FOUND.search(message)):
            return (
                f"{step.statement.word.upper()} failed: file not found in build context or excluded by .dockerignore: "
                f"stat {match[1]}: file does not exist"
            )
        if error.location is not None and not error.vertex and not message.startswith(PARSE_ERROR):
            return f"{PARSE_ERROR} on line {error.location.first}: {message}"
        return message


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:SHORT]
