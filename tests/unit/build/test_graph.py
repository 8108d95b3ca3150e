"""The graph of a build: what a node's key says, and that large graphs are walked quickly."""

from dataclasses import replace

from bennu.build.graph import (
    Copy,
    Exec,
    Files,
    GraphNode,
    ImageSource,
    Location,
    Merge,
    Mkdir,
    MountKind,
    Scratch,
    StepMount,
    digests,
    inputs,
    key,
    walk,
)

BASE = ImageSource(reference="docker.io/library/busybox:latest", image_id="sha256:" + "1" * 64)


def run(base: GraphNode, *argv: str, **more: object) -> Exec:
    return replace(Exec(base=base, argv=argv, env=("PATH=/bin",), cwd="/", user=""), **more)  # type: ignore[arg-type]


def test_names_places_and_proxies_do_not_change_a_key() -> None:
    one = run(BASE, "make")
    other = run(
        BASE, "make", name="[2/2] RUN make", location=Location(2, 2), no_cache=True, proxy_env=("HTTP_PROXY=x",)
    )
    assert key(one, ["k"]) == key(other, ["k"])


def test_what_a_node_does_and_on_what_changes_its_key() -> None:
    cache = StepMount(kind=MountKind.CACHE, target="/c", id="/c")
    nodes = [
        run(BASE, "make"),
        run(BASE, "make", "all"),
        run(BASE, "make", env=("PATH=/sbin",)),
        run(BASE, "make", network="none"),
        run(BASE, "make", platform="linux/arm64"),
        run(BASE, "make", mounts=(cache,)),
        run(BASE, "make", mounts=(replace(cache, sharing="locked"),)),
        run(BASE, "make", mounts=(replace(cache, source=Scratch()),)),
        Files(base=BASE, actions=(Mkdir(path="/a"),)),
        Files(base=BASE, actions=(Mkdir(path="/a", mode=0o700),)),
    ]
    keys = [key(node, ["k"]) for node in nodes]
    assert len(set(keys)) == len(nodes)
    assert key(nodes[0], ["k"]) != key(nodes[0], ["l"])


def test_inputs_are_the_base_and_then_what_is_mounted_or_copied() -> None:
    other = Scratch()
    mounted = run(BASE, "x", mounts=(StepMount(kind=MountKind.BIND, target="/m", source=other),))
    copied = Files(base=mounted, actions=(Copy(source=other, paths=("/a",), destination="/"), Mkdir(path="/b")))
    assert inputs(mounted) == (BASE, other)
    assert inputs(copied) == (mounted, other)
    assert inputs(Merge(base=copied, layer=other)) == (copied, other)
    assert walk(copied) == [BASE, other, mounted, copied]


def test_equal_work_has_equal_digests_though_the_nodes_are_others() -> None:
    one, two = run(Scratch(), "make"), run(Scratch(), "make")
    assert one != two
    assert digests(one)[one] == digests(two)[two]


def test_deep_graphs_and_stages_used_by_two_are_walked_once() -> None:
    last: GraphNode = BASE
    for number in range(2_000):  # each step mounts what it stands on: 2^2000 ways down
        last = run(last, str(number), mounts=(StepMount(kind=MountKind.BIND, target="/m", source=last),))
    assert len(walk(last)) == len(digests(last)) == 2_001
    assert hash(last) and last in {last} and repr(last)
