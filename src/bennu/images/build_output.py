"""Translates what buildah prints into the words of Docker's classic builder. Pure; pinned by `test_dockerfile.py`."""

import re
from collections.abc import Mapping
from typing import Final

from bennu.images.dockerfile_stages import Dockerfile, Line

STEP: Final = re.compile(r"(?:\[([0-9]+)/[0-9]+\] )?STEP ([0-9]+)/([0-9]+): (.*)\Z")
CACHED: Final = re.compile(r"--> Using cache ([0-9a-f]{64})\Z")
MADE: Final = re.compile(r"--> ([0-9a-f]{7,64})\Z")
UNUSED: Final = re.compile(r"\[Warning\] one or more build args were not consumed: \[(.*)\]\Z", re.IGNORECASE)
RUN_FAILED: Final = re.compile(r'building at STEP "(?:RUN|run) .*": while running runtime: exit status ([0-9]+)\Z')
RUN_FAILED_OLD: Final = re.compile(r"error while running runtime: exit status ([0-9]+)\Z")
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
        self._held: list[str] = []  # perhaps the last words of the builder

    def show(self, line: str) -> list[str]:
        """Answer the texts that the client's stream gets for a line of buildah's."""
        if line.startswith(NOISE[1:]) or re.match(r"(\[[0-9/]+\] )?COMMIT\b", line):
            return []
        if line.startswith(("Error: ", "error running container: ", 'time="', ": exit status")):
            self._held.append(line)
            return []
        shown = [f"{held}\n" for held in self._held]
        self._held.clear()
        return shown + self._translate(line)

    def _translate(self, line: str) -> list[str]:
        if match := STEP.match(line):
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
        return last, None

    def _command(self) -> str:
        if self._now is None:
            return ""
        argv = self._now.instruction.json_list()
        return " ".join(argv if argv is not None else [*self._shell, self._now.instruction.rest])
