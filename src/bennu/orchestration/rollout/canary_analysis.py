"""The comparison of two versions of a service that ran at the same time: is one worse?

Law: of each sign, a version is condemned only by a difference that chance *ever* brings about with a probability below
`1 - confidence`, however often one looks; or by one that needs no statistics (it never became ready). Every verdict
says its numbers.

Theory. Two cohorts were exposed for known amounts (task-seconds for deaths and flaps, connections for connection
failures). If both were equally good, the bad events would fall on them in proportion to exposure, each on the canary
with probability `share`. A binomial tail answers how likely the present count is; but the judge looks every second, and
a judge that asks often enough finds an unlikely count by chance alone. So the counts are held against all worse
versions at once: the likelihood of what was seen, averaged over every probability above `share`, by that under `share`
itself. If both versions are equally good, that ratio is a fair game's stake, and it ever reaches 20 with a chance of at
most 1 in 20 (Ville's inequality). One death of a canary among five slots, beside a version that never dies, is no
proof; three are.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import comb, erfc, exp, lgamma, log, log1p, sqrt

from bennu.orchestration.model.states import NS_PER_SECOND

MIN_PROBES = 20  # latencies are compared only when both cohorts were probed this often
EXACT_UP_TO = 500  # events; beyond it the binomial tail is taken from the normal curve
LATENCY_SLACK_NS = 5_000_000  # a few milliseconds are noise on any machine


@dataclass(frozen=True, slots=True)
class Cohort:
    """One version's record over the watched time. All counts are of that time only."""

    tasks: int = 0
    watched_ns: int = 0  # summed over its tasks
    deaths: int = 0
    oom_kills: int = 0  # of those deaths
    health_flaps: int = 0
    readiness_flaps: int = 0
    connections: int = 0
    connection_failures: int = 0
    probes: int = 0
    probe_p95_ns: int = 0


@dataclass(frozen=True, slots=True)
class Evidence:
    stable: Cohort
    canary: Cohort


class Ruling(Enum):
    GOOD = "good"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Verdict:
    ruling: Ruling
    reason: str


def judge_cohorts(evidence: Evidence, *, confidence: float, slower_by: float) -> Verdict:
    """Compare the canary with the stable version over the same time."""
    stable, canary = evidence.stable, evidence.canary
    shares = _share(canary.watched_ns, stable.watched_ns)
    counts = (
        ("died", canary.deaths, stable.deaths, shares),
        ("lost its health", canary.health_flaps, stable.health_flaps, shares),
        ("lost its readiness", canary.readiness_flaps, stable.readiness_flaps, shares),
        (
            "failed connections",
            canary.connection_failures,
            stable.connection_failures,
            _share(canary.connections, stable.connections),
        ),
    )
    for what, bad, beside, share in counts:
        chance = chance_of_ever(bad, bad + beside, share)
        if bad and chance <= 1 - confidence:
            oom = f" ({canary.oom_kills} for lack of memory)" if what == "died" and canary.oom_kills else ""
            return Verdict(
                Ruling.BAD,
                f"the new version {what} {_count(bad, 'time')}{oom}, the old one {_count(beside, 'time')}; "
                f"if both were equally good, the chance of ever seeing that would be below {max(chance, 0.0001):.2%}",
            )
    if _is_slower(canary, stable, slower_by):
        return Verdict(
            Ruling.BAD,
            f"the new version answers its probes in {canary.probe_p95_ns / 1e6:.1f} ms (95 %), "
            f"the old one in {stable.probe_p95_ns / 1e6:.1f} ms",
        )
    return Verdict(
        Ruling.GOOD,
        f"{_count(canary.tasks, 'task')} of the new version ran for {canary.watched_ns / NS_PER_SECOND:.0f} s in all "
        f"with {_count(canary.deaths, 'death')}, those of the old one {stable.watched_ns / NS_PER_SECOND:.0f} s "
        f"with {stable.deaths}",
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def chance_of_ever(hits: int, trials: int, share: float) -> float:
    """Bound the chance that draws of probability `share` *ever* look as bad as `hits` in `trials` (Ville)."""
    if hits <= 0 or hits <= trials * share:
        return 1.0
    if share <= 0:
        return 0.0
    at_most = 1 - binomial_tail(hits + 1, trials + 1, share)
    misses = trials - hits
    log_likelihood = (
        lgamma(trials + 1) - lgamma(hits + 1) - lgamma(misses + 1) + hits * log(share) + misses * log1p(-share)
    )
    log_chance = log(trials + 1) + log1p(-share) + log_likelihood - log(at_most)
    return min(1.0, exp(log_chance))


def binomial_tail(at_least: int, trials: int, share: float) -> float:
    """Compute the chance of `at_least` or more hits in `trials`, each a hit with probability `share`."""
    if at_least <= 0:
        return 1.0
    if trials > EXACT_UP_TO:  # far from the edge of what floats can hold; the normal curve is close enough there
        spread = sqrt(trials * share * (1 - share))
        above = at_least - 0.5 - trials * share
        return 0.5 * erfc(above / (spread * sqrt(2))) if spread else float(above <= 0)
    return sum(comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in range(at_least, trials + 1))


def _share(canary: int, stable: int) -> float:
    """Compute the canary's part of the exposure.

    Without any exposure of the old version there is nothing to compare with, and the canary's events are held against
    it as if both had been exposed alike.
    """
    if canary + stable == 0 or stable == 0:
        return 0.5
    return canary / (canary + stable)


def _is_slower(canary: Cohort, stable: Cohort, slower_by: float) -> bool:
    if min(canary.probes, stable.probes) < MIN_PROBES:
        return False
    return canary.probe_p95_ns > stable.probe_p95_ns * slower_by + LATENCY_SLACK_NS
