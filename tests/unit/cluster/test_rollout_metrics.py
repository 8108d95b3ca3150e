"""Metrics of a canary's tasks: samples added up, written, stored and summarized."""

from dataclasses import replace
from functools import reduce

import pytest

from bennu.cluster import codec
from bennu.cluster.rollout_metrics import MetricsBuffer, as_probe, parse_tcp_counters
from bennu.cluster.tables import MetricsRow
from bennu.engine.record import HealthProbe
from bennu.orchestration.rollout.canary_analysis import Cohort, Evidence
from bennu.orchestration.rollout.task_metrics import (
    ReadinessProbe,
    Sample,
    TaskMetrics,
    add_sample,
    drop_chance_failures,
    quantile_ns,
    step_of,
    summarize_cohort,
)

MS = 10**6
NEW = TaskMetrics(is_new=True)
READY, NOT_READY, NOT_ASKED = (Sample(is_ready=answer) for answer in (True, False, None))
WELL, ILL, STARTING = (Sample(health=word) for word in ("healthy", "unhealthy", "starting"))


def after(*looks: Sample, metrics: TaskMetrics = NEW) -> TaskMetrics:
    return reduce(add_sample, looks, metrics)


def probe(second: int, took_ms: int) -> ReadinessProbe:
    return ReadinessProbe(f"2026-03-01T10:00:{second:02}.000000000Z", took_ms * MS)


@pytest.mark.parametrize(
    ("looks", "flaps"),
    [
        pytest.param((NOT_READY, READY), 0, id="not-ready-yet"),
        pytest.param((READY, NOT_READY, NOT_READY, READY, NOT_READY), 2, id="each-loss-once"),
        pytest.param((READY, NOT_ASKED, READY), 0, id="a-daemon-that-came-back-has-not-asked-yet"),
        pytest.param((READY, NOT_ASKED, NOT_READY), 1, id="lost-while-no-daemon-looked"),
    ],
)
def test_lost_readiness_is_counted(looks: tuple[Sample, ...], flaps: int) -> None:
    assert after(*looks).readiness_flaps == flaps


@pytest.mark.parametrize(
    ("looks", "flaps"),
    [
        pytest.param((STARTING, ILL), 0, id="never-well"),
        pytest.param((WELL, ILL, ILL), 1, id="lost"),
        pytest.param((WELL, STARTING, ILL), 1, id="lost-after-the-daemon-began-anew"),
    ],
)
def test_lost_health_is_counted(looks: tuple[Sample, ...], flaps: int) -> None:
    assert after(*looks).health_flaps == flaps


@pytest.mark.parametrize(
    ("counters", "taken", "refused"),
    [
        pytest.param([(10, 1)], 0, 0, id="what-was-before-the-first-look"),
        pytest.param([(10, 1), (15, 1), None, (20, 3)], 10, 2, id="counted-by-the-kernel-while-nobody-looked"),
        pytest.param([(10, 1), (2, 0), (4, 1)], 2, 1, id="a-network-of-its-own-anew"),
    ],
)
def test_connections_are_counted_from_look_to_look(
    counters: list[tuple[int, int] | None], taken: int, refused: int
) -> None:
    metrics = after(*(Sample(counted=counted, serves=counted is not None) for counted in counters))
    assert (metrics.connections, metrics.refused) == (taken, refused)


def test_what_is_refused_before_it_serves_was_a_probe() -> None:
    starting, early, late = (
        Sample(counted=counted, serves=serves) for counted, serves in (((0, 2), False), ((0, 9), True), ((5, 10), True))
    )
    assert after(starting, early).refused == 0
    assert after(starting, early, late).refused == 1


def test_a_probe_that_is_seen_twice_counts_once() -> None:
    probes = [probe(second, 10) for second in range(8)]
    metrics = after(Sample(probes=tuple(probes[:5])), Sample(probes=tuple(probes[3:])))
    assert sum(metrics.latencies.values()) == 8


def test_the_scale_of_latencies_is_fine_enough() -> None:
    took = [number * MS for number in range(1, 101)]
    latencies = {step: sum(1 for one in took if step_of(one) == step) for step in map(step_of, took)}
    assert quantile_ns(latencies, 0.95) == pytest.approx(95 * MS, rel=0.05)
    assert quantile_ns({}, 0.95) == 0


def test_a_task_that_is_no_longer_stored_still_speaks() -> None:
    gone = replace(NEW, died=True, watched_ns=5, oom_kills=1)
    cohort = summarize_cohort(
        Cohort(tasks=1, watched_ns=100, deaths=1), [replace(NEW, died=True, oom_kills=1)], [gone, gone]
    )
    assert (cohort.tasks, cohort.deaths, cohort.oom_kills, cohort.watched_ns) == (3, 3, 3, 110)


def test_weighty_things_are_written_at_once_and_the_rest_now_and_then() -> None:
    buffer = MetricsBuffer(began_at_ns=1, by_task={"a": NEW}, written={"a": NEW}, written_at=100)
    assert not buffer.must_be_written(now=1000)
    buffer.by_task["a"] = replace(NEW, connections=5)
    assert not buffer.must_be_written(now=109)
    assert buffer.must_be_written(now=110)
    for weighty in (replace(NEW, died=True), replace(NEW, oom_kills=1), replace(NEW, readiness_flaps=1)):
        buffer.by_task["a"] = weighty
        assert buffer.must_be_written(now=101)
    buffer.by_task = {"a": NEW, "b": NEW}
    assert buffer.must_be_written(now=101)


def test_what_was_written_is_read_again() -> None:
    metrics = after(replace(WELL, probes=(probe(1, 10), probe(2, 40)), counted=(7, 1)), replace(ILL, counted=(9, 2)))
    row = MetricsRow(id="service", began_at_ns=5, ledgers={"task": metrics})
    assert codec.decode(MetricsRow, codec.encode(row)) == row


def test_a_row_is_read_whatever_its_classes_were_called_and_keeps_the_names_of_its_fields() -> None:
    stored = (
        b'{"$":"SightingsRow","began_at_ns":5,"id":"service","ledgers":{"task":{"$":"Ledger","counted":[7,1],'
        b'"is_new":true,"last_probe":"a","latencies":{"30":2},"oom_kills":1,"was_healthy":true}}}'
    )
    row = codec.decode(MetricsRow, stored)
    assert row == MetricsRow(
        id="service",
        began_at_ns=5,
        ledgers={
            "task": TaskMetrics(
                is_new=True, counted=(7, 1), last_probe="a", latencies={"30": 2}, oom_kills=1, was_healthy=True
            )
        },
    )
    names = stored.replace(b"SightingsRow", b"MetricsRow").replace(b"Ledger", b"TaskMetrics")
    assert codec.encode(row) == names


def test_the_kernels_counters_are_read_by_name() -> None:
    text = "Ip: Forwarding\nIp: 1\nTcp: ActiveOpens PassiveOpens OutRsts\nTcp: 5 70 3\nUdp: InDatagrams\nUdp: 4\n"
    assert parse_tcp_counters(text) == (70, 3)


def test_a_probes_time_is_read_from_its_log() -> None:
    start, end = "2026-03-01T10:00:00.100000000Z", "2026-03-01T10:00:00.125500000Z"
    assert as_probe(HealthProbe(start=start, end=end, exit_code=0, output="")) == (start, 25_500_000)


@pytest.mark.parametrize(
    ("refused", "is_kept"),
    [pytest.param(3, False, id="may-be-chance"), pytest.param(60, True, id="can-hardly-be-chance")],
)
def test_refused_connections_are_put_forward_only_when_chance_hardly_explains_them(refused: int, is_kept: bool) -> None:
    quiet = Cohort(tasks=2, connections=1000, connection_failures=2)
    seen = Evidence(stable=quiet, canary=replace(quiet, connection_failures=refused))
    assert (drop_chance_failures(seen) == seen) is is_kept
    assert drop_chance_failures(seen).canary.connection_failures in (0, refused)


def test_a_few_refused_connections_of_a_canary_that_took_none_say_nothing() -> None:
    seen = Evidence(stable=Cohort(tasks=1, connections=10_000), canary=Cohort(tasks=1, connection_failures=4))
    assert drop_chance_failures(seen).canary.connection_failures == 0
