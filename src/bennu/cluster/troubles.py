"""Services that cannot be managed: each is let alone for a while, and longer each time, so that the others go on."""

from dataclasses import dataclass
from typing import Final

from bennu.orchestration.model.actions import Wait

FIRST_NS: Final = 10**9
MOST_NS: Final = 300 * 10**9


@dataclass(frozen=True, slots=True)
class Trouble:
    reason: str
    delay_ns: int
    until_ns: int


class Troubles:
    """The record of troubles, by service.

    Instants are of the manager's clock. Nothing of it is stored: the next manager tries at once.
    """

    def __init__(self) -> None:
        self._of: dict[str, Trouble] = {}

    def note(self, service_id: str, error: Exception, *, now_ns: int) -> Trouble:
        before = self._of.get(service_id)
        delay_ns = min(before.delay_ns * 2, MOST_NS) if before else FIRST_NS
        trouble = Trouble(f"{type(error).__name__}: {error}", delay_ns, now_ns + delay_ns)
        self._of[service_id] = trouble
        return trouble

    def over(self, service_id: str) -> None:
        """Forget a service's troubles once it was managed or changed: its next trouble counts as a first one."""
        self._of.pop(service_id, None)

    def rests(self, service_id: str, *, now_ns: int) -> bool:
        trouble = self._of.get(service_id)
        return trouble is not None and now_ns < trouble.until_ns


def in_words(trouble: Trouble) -> Wait:
    return Wait("service", f"nothing can be decided about it: {trouble.reason}; tried again later", trouble.until_ns)
