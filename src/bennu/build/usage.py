"""What the build cache takes, record by record, and which of it a prune chooses: BuildKit's rules. Pure."""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bennu.errors import InvalidParameter

REGULAR: Final = "regular"
CACHE_MOUNT: Final = "exec.cachemount"
LOCAL: Final = "source.local"
GIT: Final = "source.git.checkout"
RESERVED_PERCENT: Final = 10
MAX_USED_PERCENT: Final = 80
MIN_FREE_PERCENT: Final = 20
MIN_SHORT_LIVED: Final = 512 * 10**6
SHORT_LIVED_SHARE: Final = 0.138  # of what is reserved
DAY_NS: Final = 24 * 3600 * 10**9
CONDITION: Final = re.compile(r'(?P<field>[a-z]+)(?:(?P<how>==|!=|~=)(?P<value>"(?:[^"\\]|\\.)*"|[^,"]*))?\Z')


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """One entry of `docker buildx du`. Sizes are bytes; `size` -1: it cannot be told."""

    id: str
    description: str = ""
    kind: str = REGULAR
    parents: tuple[str, ...] = ()  # records that must not go before it
    size: int = 0
    created_ns: int = 0
    used_ns: int = 0
    uses: int = 0
    in_use: bool = False
    shared: bool = False  # an image has the same layer
    mutable: bool = False


@dataclass(frozen=True, slots=True)
class PruneRequest:
    """What is to go. Of the spaces 0 is not given; all filters must match, of one filter's expressions each.

    unused_before_ns: what was used later stays. everything: also what images share.
    """

    everything: bool = False
    filters: tuple[str, ...] = ()  # as BuildKit's: `id~=^abc`, `type==regular`, `inuse`, several with commas
    unused_before_ns: int | None = None
    reserved_space: int = 0  # so much stays in any case
    max_used_space: int = 0
    min_free_space: int = 0


def automatic_prunes(disk_bytes: int, now_ns: int) -> list[PruneRequest]:
    """List what is pruned by itself, one after the other: as dockerd has it without options for its garbage collection.

    What is easily had again goes after two days if the cache is large; then what was not used for 60 days, then as much
    as keeps the cache within its bounds, what images share last.
    """
    bounds = PruneRequest(
        reserved_space=disk_bytes // 100 * RESERVED_PERCENT,
        max_used_space=disk_bytes // 100 * MAX_USED_PERCENT,
        min_free_space=disk_bytes // 100 * MIN_FREE_PERCENT,
    )
    short_lived = PruneRequest(
        filters=tuple(f"type=={kind}" for kind in (LOCAL, CACHE_MOUNT, GIT)),
        unused_before_ns=now_ns - 2 * DAY_NS,
        max_used_space=max(MIN_SHORT_LIVED, int(bounds.reserved_space * SHORT_LIVED_SHARE)),
    )
    old = replace(bounds, unused_before_ns=now_ns - 60 * DAY_NS)
    return [short_lived, old, bounds, replace(bounds, everything=True)]


def matches(record: UsageRecord, filters: Sequence[str]) -> bool:
    """Tell whether one of the filters fits, or there is none. Raises: InvalidParameter for what is no filter."""
    tests = [[_read_condition(part) for part in re.split(r",(?=[a-z])", one)] for one in filters]
    return not tests or any(all(test(record) for test in conditions) for conditions in tests)


def _read_condition(text: str) -> Callable[[UsageRecord], bool]:
    found = CONDITION.match(text)
    if found is None:
        raise InvalidParameter(f"invalid filter {text!r}")
    field, how, value = found["field"], found["how"], found["value"] or ""
    if value.startswith('"'):
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    if how == "~=":
        try:
            pattern = re.compile(value)
        except re.error as error:
            raise InvalidParameter(f"invalid filter {text!r}: {error}") from None
        return lambda record: (told := _field(record, field))[1] and pattern.search(told[0]) is not None
    if how == "==":
        return lambda record: _field(record, field) == (value, True)
    if how == "!=":
        return lambda record: _field(record, field) != (value, True)
    return lambda record: _field(record, field)[1]


def _field(record: UsageRecord, name: str) -> tuple[str, bool]:
    """Answer a field's value, and whether it is there; yes and no are there or not."""
    match name:
        case "id":
            return record.id, True
        case "parent":
            return ";".join(record.parents), bool(record.parents)
        case "description":
            return record.description, bool(record.description)
        case "type":
            return record.kind, bool(record.kind)
        case "inuse":
            return "", record.in_use
        case "mutable":
            return "", record.mutable
        case "shared":
            return "", record.shared
        case "private":
            return "", not record.shared
        case _:
            return "", False


def bytes_to_keep(request: PruneRequest, total: int, free: int) -> int:
    """Answer how much of the cache's `total` may stay; 0: all that is chosen goes. `free`: of the disk."""
    keep = request.max_used_space
    if (excess := request.min_free_space - free) > 0:
        keep = total - excess if keep == 0 else min(keep, total - excess)
    return max(keep, request.reserved_space)


def choose_to_prune(records: Sequence[UsageRecord], request: PruneRequest, free: int) -> list[UsageRecord]:
    """Choose what goes, each before its parents; what was used longest ago goes first. Raises: InvalidParameter."""
    total = sum(max(0, one.size) for one in records if not one.shared)
    has_bounds = bool(request.reserved_space or request.max_used_space or request.min_free_space)
    keep = bytes_to_keep(request, total, free)
    waiting = {one.id: one for one in records if _may_go(one, request)}
    children = _count_children(records)
    chosen: list[UsageRecord] = []
    while True:
        if has_bounds and total <= keep:
            return chosen
        leaves = [one for one in waiting.values() if not children[one.id]]
        if not leaves:
            return chosen
        oldest = min(leaves, key=lambda one: (one.used_ns, one.uses, one.id))
        del waiting[oldest.id]
        for parent in oldest.parents:
            children[parent] -= parent in children
        chosen.append(oldest)
        total -= 0 if oldest.shared else max(0, oldest.size)


def _may_go(record: UsageRecord, request: PruneRequest) -> bool:
    if record.in_use or (record.shared and not request.everything):
        return False
    if request.unused_before_ns is not None and record.used_ns >= request.unused_before_ns:
        return False
    return matches(record, request.filters)


def _count_children(records: Collection[UsageRecord]) -> dict[str, int]:
    counts = {one.id: 0 for one in records}
    for one in records:
        for parent in one.parents:
            if parent in counts:
                counts[parent] += 1
    return counts


def freed_bytes(records: Collection[UsageRecord]) -> int:
    """Count what their going gives back: what images share stays on the disk."""
    return sum(max(0, one.size) for one in records if not one.shared)
