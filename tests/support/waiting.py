"""Wait for a condition with a limit, never for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def wait_for(
    condition: Callable[[], Result],
    *,
    timeout_s: float = 15.0,
    what: str = "",
    describe: Callable[[], str] | None = None,
) -> Result:
    """Ask until the answer is true; return it. Fails the test with the last answer, and what `describe` adds."""
    end = time.monotonic() + timeout_s
    pause = 0.01
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > end:
            more = f"\n{describe()}" if describe else ""
            raise AssertionError(
                f"waited {timeout_s:g} s in vain for {what or condition}; last answer: {answer!r}{more}"
            )
        time.sleep(pause)
        pause = min(pause * 1.5, 0.2)
