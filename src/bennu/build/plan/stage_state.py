"""One stage while its statements are walked, and how its steps are called in the progress. Pure."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from bennu.build.dockerfile.expansion import Style, expand
from bennu.build.dockerfile.failure import DockerfileError
from bennu.build.graph import GraphNode, Location
from bennu.build.plan.draft import ImageDraft
from bennu.build.plan.stages import Stage


@dataclass(slots=True)
class StageState:
    """What a stage is so far. `arguments`: those in scope, in the order of their ARGs, None = without a value.

    env: variables in force, arguments among them. set_at: where CMD, ENTRYPOINT and HEALTHCHECK were set in this stage.
    """

    stage: Stage
    node: GraphNode
    draft: ImageDraft
    platform: str
    env: dict[str, str]
    cwd: str = "/"
    user: str = ""
    arguments: dict[str, str | None] = field(default_factory=dict)
    workdir_set: bool = False
    base_id: str = ""
    number: int = 0  # of the last step that has one
    set_at: dict[str, Location] = field(default_factory=dict)
    env_words: dict[str, str] = field(default_factory=dict)  # `env` as a step has it
    env_tuple: tuple[str, ...] | None = None  # None = to be made anew

    def set_env(self, name: str, value: str) -> None:
        """Set a variable, behind all others."""
        for table, text in ((self.env, value), (self.env_words, f"{name}={value}")):
            table.pop(name, None)
            table[name] = text
        self.env_tuple = None

    def words_of_env(self) -> tuple[str, ...]:
        if self.env_tuple is None:
            self.env_tuple = tuple(self.env_words.values())
        return self.env_tuple

    def step_name(self, text: str, *, is_trigger: bool = False, total: int = 0) -> str:
        """Answer the name of the next step: `[stage-1 2/5] RUN make`. A stage without steps gives none a number."""
        if not (total := total or self.stage.total):
            return text
        self.number += 1
        width = len(str(total))
        stage = f"{self.stage.name} " if self.stage.name else ""
        trigger = "ONBUILD " if is_trigger else ""
        return f"[{stage}{self.number:>{width}}/{total}] {trigger}{text}"


def shown(code: str, env: Mapping[str, str], style: Style) -> str:
    """Write an instruction for the progress: its word in capitals, variables put in where that can be done."""
    with contextlib.suppress(DockerfileError):
        code = expand(code, env, style).text
    word, blank, rest = code.partition(" ")
    return word.upper() + blank + rest
