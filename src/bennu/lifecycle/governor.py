"""A governor that slows crash loops beyond Docker's back-off, for containers that ask for it by label. Pure.

Docker forgets every crash after a run of ten seconds, so a container that dies every eleven is restarted at full speed
for ever. The governor keeps a score instead: each end adds one, and the score halves every ten minutes. The delay grows
with the score, whatever the length of the runs. A budget (`5 in 10m`) and codes that are never restarted make it give
up.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from bennu.errors import InvalidParameter
from bennu.go.duration import parse_duration
from bennu.lifecycle.restart import BACK_OFF_FIRST_NS, BACK_OFF_MAX_NS, Restart, Start, Stay

PREFIX: Final = "bennu.restart."
HALF_LIFE_NS: Final = 600 * 10**9
MAX_EXPONENT: Final = 64.0
MAX_DURATION_NS: Final = 365 * 24 * 3600 * 10**9
MAX_BUDGET: Final = 1000  # as many restarts are remembered
SMALL: Final = re.compile(r"[0-9]{1,6}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Governor:
    """The settings of the labels. `jitter` 0…1 widens a delay by that part either way; a budget of 0 is none.

    No delay is ever longer than `max_delay_ns`, jitter included, and no window ever holds more than `budget` restarts.
    """

    max_delay_ns: int = BACK_OFF_MAX_NS
    multiplier: float = 2.0
    jitter: float = 0.0
    budget: int = 0
    window_ns: int = 0
    never_codes: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class CrashHistory:
    """Crashes since a person's last start. `restarts_ns`: instants of the restarts, wall clock, oldest first."""

    score: float = 0.0
    scored_at_ns: int = 0
    restarts_ns: Sequence[int] = field(default=())


def parse_governor(labels: Mapping[str, str]) -> Governor | None:
    """Parse `bennu.restart.*`; None: no such label. Raises: InvalidParameter that names label and value."""
    asked = {name.removeprefix(PREFIX): text for name, text in labels.items() if name.startswith(PREFIX)}
    if not asked:
        return None
    unknown = sorted(set(asked) - {"max-delay", "multiplier", "jitter", "budget", "never-codes"})
    if unknown:
        raise InvalidParameter(f"unknown label {PREFIX}{unknown[0]}")
    budget, window_ns = _budget(asked["budget"]) if "budget" in asked else (0, 0)
    return Governor(
        max_delay_ns=_duration("max-delay", asked["max-delay"]) if "max-delay" in asked else BACK_OFF_MAX_NS,
        multiplier=_number("multiplier", asked.get("multiplier", "2"), 1.0, 100.0),
        jitter=_number("jitter", asked.get("jitter", "0"), 0.0, 1.0),
        budget=budget,
        window_ns=window_ns,
        never_codes=_codes(asked.get("never-codes", "")),
    )


def _refuse(name: str, text: str, wanted: str) -> InvalidParameter:
    return InvalidParameter(f"label {PREFIX}{name}: {text!r} is not {wanted}")


def _duration(name: str, text: str) -> int:
    try:
        total_ns = parse_duration(text)
    except ValueError:
        total_ns = 0
    if not 0 < total_ns <= MAX_DURATION_NS:
        raise _refuse(name, text, "a duration such as 30s or 1m30s, of at most a year")
    return total_ns


def _number(name: str, text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise _refuse(name, text, f"a number from {low:g} to {high:g}")
    return value


def _budget(text: str) -> tuple[int, int]:
    count, _, window = text.partition(" in ")
    if not SMALL.fullmatch(count.strip()) or not 0 < int(count) <= MAX_BUDGET:
        raise _refuse("budget", text, f"a budget such as `5 in 10m`, of 1 to {MAX_BUDGET}")
    return int(count), _duration("budget", window.strip().replace(" min", "m").replace(" ", ""))


def _codes(text: str) -> frozenset[int]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not all(SMALL.fullmatch(word) and int(word) < 256 for word in words):
        raise _refuse("never-codes", text, "a list of exit codes such as 3,64")
    return frozenset(int(word) for word in words)


def score_after_end(past: CrashHistory, now_ns: int) -> float:
    """Add one end to the remainder of the former score. A clock set back decays nothing."""
    elapsed_ns = max(0, now_ns - past.scored_at_ns)
    kept: float = past.score * 0.5 ** min(elapsed_ns / HALF_LIFE_NS, MAX_EXPONENT)
    return kept + 1.0


def govern(
    governor: Governor, decision: Restart | Stay, past: CrashHistory, *, code: int | None, now_ns: int, draw: float
) -> Restart | Stay:
    """Replace Docker's decision by the governor's: its own delay, or no restart. A decision to stay is kept.

    Args:
        code: of the end in question; None if unknown.
        draw: a random number from 0 to 1, for the jitter.
    """
    if isinstance(decision, Stay):
        return decision
    if code in governor.never_codes:
        return Stay(decision.delay_ns, _never(code))
    recent = sum(1 for instant in past.restarts_ns if now_ns - instant < governor.window_ns)
    if 0 < governor.budget <= recent:
        return Stay(decision.delay_ns, _used_up(governor), gave_up=True)
    score = score_after_end(past, now_ns)
    growth = governor.multiplier ** min(score - 1.0, MAX_EXPONENT)
    spread = 1.0 + governor.jitter * (2.0 * draw - 1.0)
    delay_ns = min(min(BACK_OFF_FIRST_NS * growth, float(governor.max_delay_ns)) * spread, governor.max_delay_ns)
    return Restart(round(delay_ns), f"{decision.reason}; its crash score is {score:.1f}")


def govern_boot(governor: Governor, decision: Start | Stay, *, code: int | None, gave_up: bool) -> Start | Stay:
    """Replace the decision to start it along with the daemon, or keep it.

    `gave_up`: its last end found the budget used.
    """
    if isinstance(decision, Stay):
        return decision
    if code in governor.never_codes:
        return Stay(0, _never(code))
    return Stay(0, _used_up(governor), gave_up=True) if gave_up else decision


def _never(code: int | None) -> str:
    return f"exit code {code} is never to be restarted ({PREFIX}never-codes)"


def _used_up(governor: Governor) -> str:
    return f"all {governor.budget} restarts of its budget are used ({PREFIX}budget)"
