"""The way a service wants to be rolled out beyond Docker's, read from its labels.

bennu.rollout.strategy        rolling (Docker's, the default), canary, blue-green
bennu.rollout.steps           canary: how many tasks, or what part, is new in each step, and how long each is
                              watched: `1:30s,25%,50%:2m`
bennu.rollout.watch           canary: how long a step is watched that does not say so (60s)
bennu.rollout.confidence      canary: how sure a comparison must be to condemn the new version (0.95)
bennu.rollout.slower-by       canary: how many times slower its health probes may be answered (1.5)
bennu.rollout.settle          blue-green: how long all new tasks run before the traffic is switched (5s)
bennu.rollout.keep-warm       blue-green: how long the old tasks stay for a switch back (5m)
bennu.rollout.ready-within    both: how long a step, or all of green, may take to be ready (5m)
"""

import re
from collections.abc import Mapping
from typing import Final

from bennu.cluster.errors import invalid
from bennu.go.duration import parse_duration
from bennu.orchestration.model.spec import BlueGreen, Canary, CanaryStep, Rolling, Strategy

PREFIX: Final = "bennu.rollout."
STRATEGIES: Final = ("rolling", "canary", "blue-green")
OF_CANARY: Final = frozenset({"steps", "watch", "confidence", "slower-by", "ready-within"})
OF_BLUE_GREEN: Final = frozenset({"settle", "keep-warm", "ready-within"})
STEP: Final = re.compile(r"([1-9][0-9]{0,5})(%?)(?::(.+))?\Z", re.ASCII)
MAX_STEPS: Final = 50


def read_strategy(labels: Mapping[str, str]) -> Strategy:
    """Read the strategy from a service's labels.

    Raises: BennuError (400) that names the label and the values it may have.
    """
    given = {name.removeprefix(PREFIX): text for name, text in labels.items() if name.startswith(PREFIX)}
    name = given.pop("strategy", "rolling")
    if name not in STRATEGIES:
        raise _wrong("strategy", name, f"one of {', '.join(STRATEGIES)}")
    for key in given:
        if key not in OF_CANARY | OF_BLUE_GREEN:
            raise invalid(f"label {PREFIX}{key} is not known")
    if name == "canary":
        return _canary(given)
    if name == "blue-green":
        return BlueGreen(
            settle_ns=_duration(given, "settle", "5s"),
            keep_warm_ns=_duration(given, "keep-warm", "5m"),
            ready_within_ns=_duration(given, "ready-within", "5m"),
        )
    return Rolling()


def name_of(strategy: Strategy) -> str:
    match strategy:
        case Canary():
            return "canary"
        case BlueGreen():
            return "blue-green"
        case Rolling():
            return "rolling"


def _canary(given: Mapping[str, str]) -> Canary:
    watch_ns = _duration(given, "watch", "60s")
    steps = tuple(_step(text.strip(), watch_ns) for text in given.get("steps", "1").split(","))
    if len(steps) > MAX_STEPS:
        raise _wrong("steps", given["steps"], f"at most {MAX_STEPS} steps")
    return Canary(
        steps=steps,
        confidence=_number(given, "confidence", "0.95", least=0.5, most=0.999999),
        slower_by=_number(given, "slower-by", "1.5", least=1.0, most=1000.0),
        ready_within_ns=_duration(given, "ready-within", "5m"),
    )


def _step(text: str, watch_ns: int) -> CanaryStep:
    found = STEP.match(text)
    if not found or (found[2] and int(found[1]) > 100):
        raise _wrong("steps", text, "a list such as 1:30s,25%,50%:2m")
    if found[3]:
        try:
            watch_ns = parse_duration(found[3])
        except ValueError:
            raise _wrong("steps", text, "a list such as 1:30s,25%,50%:2m") from None
    number = int(found[1])
    return CanaryStep(percent=number, watch_ns=watch_ns) if found[2] else CanaryStep(tasks=number, watch_ns=watch_ns)


def _duration(given: Mapping[str, str], name: str, default: str) -> int:
    text = given.get(name, default)
    try:
        return parse_duration(text)
    except ValueError:
        raise _wrong(name, text, "a duration such as 10s or 1m30s") from None


def _number(given: Mapping[str, str], name: str, default: str, *, least: float, most: float) -> float:
    text = given.get(name, default)
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not least <= value <= most:
        raise _wrong(name, text, f"a number from {least:g} to {most:g}")
    return value


def _wrong(name: str, text: str, wanted: str) -> Exception:
    return invalid(f"label {PREFIX}{name}={text[:40]} is not {wanted}")
