"""Which slots go when a service is scaled down.

Docker's order: slots with a running task first, then by number. Walking in this order, each slot is the 1st, 2nd, 3rd …
*on its node*; slots with two tasks or without a node have no such number. The lowest numbers stay. So the most loaded
node loses first, then what does not run, then the highest slot number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bennu.orchestration.model import NodeId
from bennu.orchestration.slots import Slot


def choose_victims(slots: Sequence[Slot], count: int) -> list[Slot]:
    """The `count` slots to give up."""
    unknown = len(slots) + 1
    seen: Counter[NodeId] = Counter()
    ranked: list[tuple[int, Slot]] = []
    for slot in sorted(slots, key=lambda slot: (not slot.is_running, slot.key)):
        shown = slot.live or (slot.newest,)
        node_id = shown[0].node_id if len(shown) == 1 else None
        if node_id is None:
            ranked.append((unknown, slot))
            continue
        seen[node_id] += 1
        ranked.append((seen[node_id], slot))
    ranked.sort(key=lambda pair: pair[0])
    return [slot for _, slot in ranked[len(slots) - count :]]
