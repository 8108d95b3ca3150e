"""Translates what buildah prints into the words of Docker's classic builder. Pure; pinned by `test_dockerfile.py`."""

import re
from collections.abc import Mapping
from typing import Final

from bennu.images.dockerfile_stages import Dockerfile, Line

# Where the builder goes on behind a last line of a step's that has no end.
SEAM: Final = re.compile(
    r"(?:\[([0-9]+)/[0-9]+\] )?STEP ([0-9]+)/[0-9]+: |(?:\[[0-9/]+\] )?COMMIT\Z|--> [0-9a-f]{7,64}\Z"
    r'|Error: (?:error )?building at STEP ".*\Z'
)
STEP: Final = re.compile(r"(?:\[([0-9]+)/[0-9]+\] )?STEP ([0-9]+)/([0-9]+): (.*)\Z")
CACHED: Final = re.compile(r"--> Using cache ([0-9a-f]{64})\Z")
MADE: Final = re.compile(r"--> ([0-9a-f]{7,64})\Z")
UNUSED: Final = re.compile(r"\[Warning\] one or more build args were not consumed: \[(.*)\]\Z", re.IGNORECASE)
RUN_FAILED: Final = re.compile(r'building at STEP "(?:RUN|run) .*": while running runtime: exit status ([0-9]+)\Z')
RUN_FAILED_OLD: Final = re.compile(r"error while running runtime: exit status ([0-9]+)\Z")
# What the builder behind us puts before the reason: its own structures, and files that are ours.
WRAPPED: Final = re.compile(
    r'(?:error )?(?:building at STEP ".*?": |parsing main Dockerfile: \S+: |resolving step \{.*?\}: )(.+)\Z', re.DOTALL
)
TOLD_LINE: Final = re.compile(r"resolving step \{.*\bStartLine:([0-9]{1,9})\b")
NOT_FOUND: Final = re.compile(r"creating container for \[.*\]: executable file `(.*)` not found in \$PATH")
NO_SOURCE: Final = re.compile(r'copier: stat: \\?"/?(.*?)\\?": no such file or directory')
NO_MATCH: Final = re.compile(r'no items matching glob \\?"(.*?)\\?" copied')
NOISE: Final = ("COMMIT ", "Getting image source signatures", "Copying blob ", "Copying config ", "Writing manifest ")


class BuildOutput:
    """Follows a build line by line: knows which step is on, and what to show of each line."""

    def __init__(self, dockerfile: Dockerfile, more_steps: int, base_ids: Mapping[str, str]) -> None:
        self._dockerfile = dockerfile
        self._total = dockerfile.step_count + more_steps
        self._base_ids = base_ids
        self._shell = ["/bin/sh", "-c"]
        self._now: Line | None = None
        self._place = (0, 0)  # the step that is on: its stage, and its number there, from 1
        self._held: list[str] = []  # perhaps the last words of the builder

    def show(self, line: str) -> list[str]:
        """Answer the texts that the client's stream gets for a line of buildah's."""
        begin = self._seam(line)
        if begin:
            return [*self._show(line[:begin]), *self._show(line[begin:])]
        return self._show(line)

    def _seam(self, line: str) -> int:
        """Find where the builder's own words begin behind those of a RUN; 0: nowhere, or the line is all its own."""
        if self._now is None or self._now.instruction.word != "RUN":
            return 0
        for match in SEAM.finditer(line):
            if not match[2] or self._may_follow(int(match[1] or 1), int(match[2])):
                return match.start()
        return 0

    def _may_follow(self, stage: int, step: int) -> bool:
        """Tell whether this step can be the next: a program's own words can look like the builder's."""
        if stage == self._place[0]:
            return step == self._place[1] + 1
        return self._place[0] < stage <= len(self._dockerfile.stages) and step == 1

    def _show(self, line: str) -> list[str]:
        if line.startswith(NOISE[1:]) or re.match(r"(\[[0-9/]+\] )?COMMIT\b", line):
            return []
        if line.startswith(("Error: ", "error running container: ", 'time="', ": exit status")):
            self._held.append(line)
            return []
        shown = [f"{held}\n" for held in self._held]
        self._held.clear()
        return shown + self._translate(line)

    def _translate(self, line: str) -> list[str]:
        if (match := STEP.match(line)) and self._may_follow(int(match[1] or 1), int(match[2])):
            return self._step(int(match[1] or 1), int(match[2]), match[4])
        if CACHED.match(line):
            return [" ---> Using cache\n"]
        if match := MADE.match(line):
            return [f" ---> {match[1][:12]}\n"]
        if match := UNUSED.match(line):
            return [f"[Warning] One or more build-args [{match[1]}] were not consumed\n"]
        return [f"{line}\n"]

    def _step(self, stage_number: int, number: int, text: str) -> list[str]:
        before = sum(len(stage.lines) for stage in self._dockerfile.stages[: stage_number - 1])
        stage = self._dockerfile.stages[stage_number - 1]
        self._now = stage.lines[number - 1] if number <= len(stage.lines) else None
        self._place = stage_number, number
        texts = [f"Step {before + number}/{self._total} : {self._now.text if self._now else text}", "\n"]
        if number == 1:
            self._shell = ["/bin/sh", "-c"]
            if stage.base in self._base_ids:
                texts.append(f" ---> {self._base_ids[stage.base][:12]}\n")
        if self._now and self._now.instruction.word == "SHELL":
            self._shell = self._now.instruction.json_list() or self._shell
        return texts

    def failure(self) -> tuple[str, int | None]:
        """Answer, for a build that failed, Docker's words and the exit code of the RUN that ended it, if one did."""
        words = "\n".join(self._held)
        last = self._held[-1].removeprefix("Error: ") if self._held else "the builder died without a word"
        if match := NOT_FOUND.search(words):
            return (
                "failed to create task for container: failed to create shim task: OCI runtime create failed: runc "
                f'create failed: unable to start container process: exec: "{match[1]}": executable file not found in '
                "$PATH: unknown"
            ), None
        if match := RUN_FAILED.search(last) or RUN_FAILED_OLD.search(last):
            return f"The command '{self._command()}' returned a non-zero code: {match[1]}", int(match[1])
        word = self._now.instruction.word if self._now else ""
        if word in ("COPY", "ADD") and (match := NO_SOURCE.search(last) or NO_MATCH.search(last)):
            return (
                f"{word} failed: file not found in build context or excluded by .dockerignore: "
                f"stat {match[1]}: file does not exist"
            ), None
        if match := WRAPPED.match(last):
            number = self._number(last)
            return f"dockerfile parse error on line {number}: {match[1]}" if number else match[1], None
        return last, None

    def _number(self, words: str) -> int:
        """Answer the line of the Dockerfile that the builder complains of; 0 if that is not known.

        Where it tells a line itself, that is one of the file that it was given: see `Dockerfile.rewritten`.
        """
        given = [*self._dockerfile.head, *(line for stage in self._dockerfile.stages for line in stage.lines)]
        if told := TOLD_LINE.search(words):
            index = int(told[1]) - 2  # the first line is not of the Dockerfile
            return given[index].number if 0 <= index < len(given) else 0
        return self._now.number if self._now else 0

    def _command(self) -> str:
        if self._now is None:
            return ""
        argv = self._now.instruction.json_list()
        return " ".join(argv if argv is not None else [*self._shell, self._now.instruction.rest]).rstrip()
