"""The bound on probes: it holds, and probes that hang delay no others."""

import asyncio
from collections import Counter

import pytest

from bennu.engine.probes import PLACE_S, PROBES_AT_ONCE, ProbePlaces


async def hold(places: ProbePlaces, until: asyncio.Event) -> None:
    async with places.take():
        await until.wait()


@pytest.mark.slow
async def test_no_more_than_the_bound_start_and_hung_ones_give_way() -> None:
    counters: Counter[str] = Counter()
    places, end = ProbePlaces(counters), asyncio.Event()
    hung = [asyncio.ensure_future(hold(places, end)) for _ in range(PROBES_AT_ONCE + 3)]
    await asyncio.sleep(0)
    assert (counters["probes running"], counters["probes waiting"]) == (PROBES_AT_ONCE, 3)
    async with asyncio.timeout(PLACE_S + 0.5):
        async with places.take():
            assert counters["probes running"] == PROBES_AT_ONCE + 4
            assert counters["probes slow"] == PROBES_AT_ONCE
    end.set()
    await asyncio.gather(*hung)
    assert (counters["probes running"], counters["probes waiting"], counters["probes slow"]) == (0, 0, 0)
    assert counters["probes"] == PROBES_AT_ONCE + 4
    held = [asyncio.ensure_future(hold(places, asyncio.Event())) for _ in range(PROBES_AT_ONCE + 1)]
    await asyncio.sleep(0)
    assert counters["probes waiting"] == 1, "a place given back twice is a place too many"
    for one in held:
        one.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    assert counters["probes running"] == counters["probes waiting"] == 0
