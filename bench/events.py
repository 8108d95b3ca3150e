"""The engines' own event streams, with the instants they put on them."""

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from bench.engines import Engine


@dataclass(slots=True)
class Seen:
    """One event; `at_ns` is the engine's own wall-clock stamp."""

    at_ns: int
    action: str
    container: str
    name: str


@dataclass(slots=True)
class Recorder:
    """Events as they come, in order."""

    seen: list[Seen] = field(default_factory=list)

    def wait(self, action: str, name: str, after_ns: int, timeout_s: float = 30.0) -> Seen:
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            for one in self.seen:
                if one.action == action and one.name == name and one.at_ns > after_ns:
                    return one
            time.sleep(0.005)
        raise AssertionError(f"no event {action} of {name} within {timeout_s:g} s")


@contextlib.contextmanager
def recorded(engine: Engine) -> Iterator[Recorder]:
    """Record container events while the block runs."""
    argv = [engine.cli.program, "events", "--filter", "type=container", "--format", "{{json .}}"]
    process = subprocess.Popen(argv, env=dict(engine.cli.environment), stdout=subprocess.PIPE, text=True)
    recorder = Recorder()

    def read() -> None:
        assert process.stdout
        for line in process.stdout:
            event = json.loads(line)
            actor = event["Actor"]
            recorder.seen.append(
                Seen(event["timeNano"], event["Action"], actor["ID"], actor["Attributes"].get("name", ""))
            )

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    time.sleep(0.3)
    try:
        yield recorder
    finally:
        process.terminate()
        process.wait()
        reader.join()
