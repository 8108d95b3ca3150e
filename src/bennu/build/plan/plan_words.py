"""Puts variables into the words of instructions, and warns of what is written there. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from bennu.build.dockerfile.expansion import Expanded, Style, expand
from bennu.build.dockerfile.failure import DockerfileError, nearest
from bennu.build.dockerfile.rules import Linter
from bennu.build.dockerfile.statements import Pair, StageStatement
from bennu.build.plan.stage_state import StageState

NOT_IN_ENV: Final = frozenset(("BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"))
SECRET_WORDS: Final = "apikey|auth|credential|credentials|key|password|pword|passwd|secret|token"
SECRET: Final = re.compile(rf"(?:_|^)(?:{SECRET_WORDS})(?:_|$)", re.IGNORECASE)
PUBLIC: Final = re.compile(r"(?:_|^)public(?:_|$)", re.IGNORECASE)
MAX_OPTIONS: Final = 200  # so many variables are looked through for what was perhaps meant
MAX_EXPANDED: Final = 64 << 20  # letters of all words of a plan


@dataclass(slots=True)
class PlanWords:
    """The words of one plan. `style`: how the Dockerfile escapes; `expanded`: how many letters there were so far."""

    style: Style
    linter: Linter
    expanded: int = 0

    def expand(self, state: StageState, text: str, statement: StageStatement, style: Style | None = None) -> str:
        """Put variables into a word. Raises: DockerfileError."""
        found = expand(text, state.env, style or self.style)
        self.count(found.text)
        self.lint_missing(state, found, statement)
        return found.text

    def count(self, text: str) -> None:
        self.expanded += len(text)
        if self.expanded > MAX_EXPANDED:
            raise DockerfileError(f"the words of the Dockerfile are longer than {MAX_EXPANDED} letters")

    def lint_missing(self, state: StageState, found: Expanded, statement: StageStatement) -> None:
        for name in found.missing if self.linter.hears("UndefinedVar") else ():
            if name not in state.arguments and name not in NOT_IN_ENV:
                near = nearest(name, islice(state.env, MAX_OPTIONS))
                hint = f" (did you mean ${near}?)" if near else ""
                self.linter.warn("UndefinedVar", statement.location, name, hint)

    def expand_pairs(
        self, state: StageState, pairs: Sequence[Pair], statement: StageStatement
    ) -> list[tuple[str, str]]:
        return [(self.expand(state, pair.name, statement), self.expand(state, pair.value, statement)) for pair in pairs]

    def lint_secret(self, instruction: str, name: str, statement: StageStatement) -> None:
        if SECRET.search(name) and not PUBLIC.search(name):
            self.linter.warn("SecretsUsedInArgOrEnv", statement.location, instruction, name)

    def lint_once(self, state: StageState, statement: StageStatement) -> None:
        """Warn of the earlier of two instructions of which only the last counts."""
        kind = statement.word.upper()
        if kind in state.set_at:
            self.linter.warn("MultipleInstructionsDisallowed", state.set_at[kind], statement.word)
        state.set_at[kind] = statement.location
