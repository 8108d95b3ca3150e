"""Which records a prune chooses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bennu.build.usage import (
    CACHE_MOUNT,
    DAY_NS,
    PruneRequest,
    UsageRecord,
    automatic_prunes,
    bytes_to_keep,
    choose_to_prune,
    matches,
)
from bennu.errors import InvalidParameter

BASE = UsageRecord("base", size=100, used_ns=1, description="[1/2] COPY a")
TOP = UsageRecord("top", size=10, used_ns=5, parents=("base",), in_use=True)
MOUNT = UsageRecord("mount", size=1000, used_ns=3, kind=CACHE_MOUNT, mutable=True)
SHARED = UsageRecord("shared", size=7, used_ns=2, shared=True)


@pytest.mark.parametrize(
    ("expression", "fitting"),
    [
        ("id==base", {"base"}),
        ("id~=^(base|top)$", {"base", "top"}),
        ("id!=base", {"top", "mount", "shared"}),
        ("type==exec.cachemount", {"mount"}),
        ("inuse", {"top"}),
        ("inuse==true", set()),
        ("private,mutable", {"mount"}),
        ("shared", {"shared"}),
        ('description~="COPY a"', {"base"}),
        ("parent==base", {"top"}),
        ("label==x", set()),
    ],
)
def test_filters_mean_what_they_mean_to_buildkit(expression: str, fitting: set[str]) -> None:
    found = {one.id for one in (BASE, TOP, MOUNT, SHARED) if matches(one, [expression])}
    assert found == fitting


@pytest.mark.parametrize("wrong", ["", "id~=(", "ID==1", "id=x"])
def test_what_is_no_filter_is_refused(wrong: str) -> None:
    with pytest.raises(InvalidParameter):
        matches(BASE, [wrong])


@pytest.mark.parametrize(
    ("request_", "gone"),
    [
        (PruneRequest(), ["mount"]),
        (PruneRequest(everything=True), ["shared", "mount"]),
        (PruneRequest(everything=True, unused_before_ns=3), ["shared"]),
        (PruneRequest(everything=True, reserved_space=200), ["shared", "mount"]),
        (PruneRequest(reserved_space=2000), []),
        (PruneRequest(filters=("id==shared",)), []),
        (PruneRequest(everything=True, filters=("id==shared",)), ["shared"]),
    ],
)
def test_a_prune_takes_what_is_free_to_go_the_oldest_first(request_: PruneRequest, gone: list[str]) -> None:
    """`base` stays: what is made from it is in use."""
    assert [one.id for one in choose_to_prune([BASE, TOP, MOUNT, SHARED], request_, free=0)] == gone


def test_so_much_stays_as_the_bounds_say() -> None:
    assert bytes_to_keep(PruneRequest(), 100, 5) == 0
    assert bytes_to_keep(PruneRequest(max_used_space=60), 100, 5) == 60
    assert bytes_to_keep(PruneRequest(min_free_space=25), 100, 5) == 80
    assert bytes_to_keep(PruneRequest(max_used_space=60, min_free_space=25, reserved_space=70), 100, 5) == 70


def test_the_cache_stays_within_its_bounds_by_itself() -> None:
    gigabyte = 10**9
    now_ns = 100 * DAY_NS
    records = [
        UsageRecord("new", size=5 * gigabyte, used_ns=now_ns, shared=True),
        UsageRecord("mount", size=gigabyte, used_ns=now_ns - 3 * DAY_NS, kind=CACHE_MOUNT),
        UsageRecord("old", size=gigabyte, used_ns=now_ns - 61 * DAY_NS),
        UsageRecord("recent", size=gigabyte, used_ns=now_ns - DAY_NS),
    ]

    def gone(disk: int, free: int) -> list[str]:
        left, found = list(records), []
        for request in automatic_prunes(disk, now_ns):
            for one in choose_to_prune(left, request, free):
                found.append(one.id)
                left.remove(one)
        return found

    assert gone(1000 * gigabyte, free=900 * gigabyte) == []
    assert gone(10 * gigabyte, free=9 * gigabyte) == ["mount"]
    assert gone(10 * gigabyte, free=gigabyte) == ["mount", "old"]
    assert gone(2 * gigabyte, free=gigabyte) == ["mount", "old"]


@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.integers(0, 50)), max_size=7),
    st.integers(0, 100),
)
def test_nothing_goes_before_what_is_made_from_it(plan: list[tuple[int, bool, int]], keep: int) -> None:
    records = [
        UsageRecord(str(at), parents=(str(parent),) if parent < at else (), in_use=used, size=size, used_ns=size)
        for at, (parent, used, size) in enumerate(plan)
    ]
    chosen = choose_to_prune(records, PruneRequest(reserved_space=keep), free=0)
    gone = [one.id for one in chosen]
    assert len(gone) == len(set(gone)) and not any(one.in_use for one in chosen)
    for one in records:
        for parent in one.parents:
            assert parent not in gone or (one.id in gone and gone.index(one.id) < gone.index(parent))
