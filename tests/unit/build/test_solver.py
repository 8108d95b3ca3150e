"""Laws of running a graph, over random graphs, failures and moments of a cut."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bennu.build.graph import Exec, GraphNode, Merge, MountKind, Scratch, StepMount, digests, inputs, walk
from bennu.build.snapshots import StepSnapshot
from bennu.build.solver import NodeFailed, NodeResult, Solver, Telling
from bennu.build.vertices import Vertex, VertexLog, VertexStatus, VertexWarning
from bennu.errors import BennuError

SLOTS = 2


@dataclass
class Heard:
    """A progress that keeps all it is told."""

    vertices: list[Vertex] = field(default_factory=list)
    logs: list[VertexLog] = field(default_factory=list)

    def vertex(self, vertex: Vertex) -> None:
        self.vertices.append(vertex)

    def status(self, status: VertexStatus) -> None: ...

    def log(self, log: VertexLog) -> None:
        self.logs.append(log)

    def warning(self, warning: VertexWarning) -> None: ...


@dataclass
class Counted:
    """Operations whose work is turns of the loop; `made` outlives one build, as a cache does."""

    turns: Mapping[str, int]
    failing: frozenset[str] = frozenset()
    made: dict[str, StepSnapshot] = field(default_factory=dict)
    begun: Counter[str] = field(default_factory=Counter)
    at_work: set[str] = field(default_factory=set)
    most: int = 0

    async def key(self, node: GraphNode, given: Mapping[GraphNode, NodeResult]) -> str:
        below = [given[one].snapshot.layers for one in inputs(node)]
        return f"{node.argv[0]} {below}" if isinstance(node, Exec) else ""

    def recall(self, key: str) -> NodeResult | None:
        return NodeResult(self.made[key]) if key in self.made else None

    async def run(
        self, node: GraphNode, key: str, given: Mapping[GraphNode, NodeResult], telling: Telling
    ) -> NodeResult:
        if not isinstance(node, Exec):
            return NodeResult()
        name = node.argv[0]
        assert all(one in given for one in inputs(node))
        self.begun[name] += 1
        self.at_work.add(name)
        self.most = max(self.most, len(self.at_work))
        try:
            for _ in range(self.turns.get(name, 0)):
                await asyncio.sleep(0)
            telling.log(1, name.encode())
            if name in self.failing:
                raise BennuError(f"{name} failed")
            self.made[key] = given[node.base].snapshot.over(name)
            return NodeResult(self.made[key])
        finally:
            self.at_work.discard(name)


def step(name: str, base: GraphNode, others: list[GraphNode]) -> Exec:
    mounts = tuple(StepMount(kind=MountKind.BIND, target=f"/{i}", source=one) for i, one in enumerate(others))
    return Exec(name=name, base=base, argv=(name,), env=(), cwd="/", user="", mounts=mounts)


@st.composite
def graphs(draw: st.DrawFn) -> GraphNode:
    nodes: list[GraphNode] = [Scratch()]
    for number in range(draw(st.integers(1, 8))):
        base = draw(st.sampled_from(nodes))
        others = draw(st.lists(st.sampled_from(nodes), max_size=2))
        if number % 4 == 3:
            nodes.append(Merge(base=base, layer=nodes[-1], name=f"merge{number}"))
        else:
            nodes.append(step(f"n{number}", base, others))
    return nodes[-1]


names = st.sampled_from([f"n{number}" for number in range(8)])
turns = st.dictionaries(names, st.integers(0, 5))


@settings(deadline=None, max_examples=40)
@given(graphs(), turns)
def test_each_node_runs_once_after_its_inputs_and_nothing_the_second_time(
    last: GraphNode, turns: dict[str, int]
) -> None:
    operations, heard = Counted(turns), Heard()

    async def main() -> None:
        solver = Solver(SLOTS)
        first = await solver.solve(last, operations, heard)
        assert (await solver.solve(last, operations, Heard())).snapshot == first.snapshot

    asyncio.run(main())
    wanted = {node.argv[0] for node in walk(last) if isinstance(node, Exec)}
    assert operations.begun == Counter(wanted) and operations.most <= SLOTS
    done: set[str] = set()
    of = digests(last)
    needs = {of[node]: {of[one] for one in inputs(node)} for node in walk(last)}
    for vertex in heard.vertices:
        if vertex.started_ns is not None:
            assert needs[vertex.digest] <= done
        if vertex.completed_ns is not None:
            done.add(vertex.digest)
    assert done == needs.keys()


@settings(deadline=None, max_examples=40)
@given(graphs(), turns, names)
def test_the_first_failure_is_told_and_nothing_goes_on(last: GraphNode, turns: dict[str, int], bad: str) -> None:
    operations = Counted(turns, frozenset({bad}))
    there = {node.argv[0] for node in walk(last) if isinstance(node, Exec)}

    async def main() -> None:
        if bad not in there:
            await Solver(SLOTS).solve(last, operations, Heard())
            return
        with pytest.raises(NodeFailed, match=f"^{bad} failed$") as told:
            await Solver(SLOTS).solve(last, operations, Heard())
        assert told.value.node.name == bad

    asyncio.run(main())
    assert not operations.at_work and all(bad not in snapshot.layers for snapshot in operations.made.values())


@settings(deadline=None, max_examples=40)
@given(graphs(), turns, st.integers(0, 30))
def test_a_build_that_is_cut_off_leaves_whole_results_and_the_next_one_ends(
    last: GraphNode, turns: dict[str, int], moment: int
) -> None:
    operations = Counted(turns)

    async def main() -> None:
        solver = Solver(SLOTS)
        cut, other = (asyncio.create_task(solver.solve(last, operations, Heard())) for _ in range(2))
        for _ in range(moment):
            await asyncio.sleep(0)
        cut.cancel()
        await asyncio.wait([cut])
        result = await other
        assert not operations.at_work
        assert (await solver.solve(last, operations, Heard())).snapshot == result.snapshot

    asyncio.run(main())
    assert max(operations.begun.values(), default=0) <= 2


def test_what_two_builds_want_at_once_runs_once_and_both_hear_of_it() -> None:
    operations, heard = Counted({"a": 5}), (Heard(), Heard())
    last = step("a", Scratch(), [])

    async def main() -> None:
        solver = Solver(SLOTS)
        await asyncio.gather(*(solver.solve(last, operations, one) for one in heard))

    asyncio.run(main())
    assert operations.begun == {"a": 1}
    assert [log.data for one in heard for log in one.logs] == [b"a", b"a"]


def test_a_node_that_must_not_come_from_the_cache_runs_each_time() -> None:
    operations = Counted({})
    node = Exec(base=Scratch(), argv=("a",), env=(), cwd="/", user="", no_cache=True)

    async def main() -> None:
        for _ in range(2):
            await Solver(SLOTS).solve(node, operations, Heard())

    asyncio.run(main())
    assert operations.begun == {"a": 2}
