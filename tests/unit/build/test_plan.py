"""The nodes of a plan: what steps are told, what they copy and mount, and what contexts are asked for."""

from typing import Any

import pytest

from bennu.build.dockerfile.failure import DockerfileError
from bennu.build.graph import (
    Copy,
    Exec,
    Files,
    GitSource,
    GraphNode,
    HttpSource,
    ImageSource,
    LocalSource,
    Merge,
    Mkdir,
    Mkfile,
    MountKind,
    Scratch,
    SolvedSource,
    walk,
)
from bennu.build.plan.draft import finish_config
from bennu.build.plan.options import BaseImage, BuildPlan, ImageNeed, PlanOptions, SolvedContext
from bennu.build.plan.planner import make_plan
from bennu.build.plan.read import needed_images, read_file

BASE = BaseImage("sha256:1", {"config": {"Env": ["PATH=/bin"]}, "rootfs": {"diff_ids": ["sha256:2"]}})


def plan(text: str, *, images: dict[str, BaseImage] | None = None, **more: Any) -> BuildPlan:
    file = read_file(text.encode(), PlanOptions(host_platform="linux/amd64", **more))
    known: dict[ImageNeed, BaseImage] = {}
    while needs := needed_images(file, known):
        known |= {need: (images or {}).get(need.written, BASE) for need in needs}
    return make_plan(file, known)


def run(text: str, **more: Any) -> Exec:
    node = plan(f"FROM base\n{text}\n", **more).last
    assert isinstance(node, Exec)
    return node


def copies(text: str, **more: Any) -> tuple[Files, list[Copy]]:
    node = plan(f"FROM base\n{text}\n", **more).last
    assert isinstance(node, Files)
    return node, [action for action in node.actions if isinstance(action, Copy)]


def locals_of(node: GraphNode) -> dict[str, LocalSource]:
    return {one.context: one for one in walk(node) if isinstance(one, LocalSource)}


def test_a_step_is_told_of_all_that_is_in_force() -> None:
    node = run(
        'ENV A=1\nARG B=2\nARG C\nWORKDIR /w\nUSER me\nSHELL ["/x", "-y"]\nRUN --network=none make all',
        arguments={"HTTPS_PROXY": "http://p", "UNDECLARED": "x"},
        hosts=(("h", "1.2.3.4"),),
        shm_size=5,
    )
    assert node.argv == ("/x", "-y", "make all")
    assert node.command == "/x -y make all"
    assert node.env == ("PATH=/bin", "A=1", "B=2")
    assert (node.cwd, node.user, node.network, node.hosts, node.shm_size) == (
        "/w",
        "me",
        "none",
        (("h", "1.2.3.4"),),
        5,
    )
    assert node.proxy_env == ("HTTPS_PROXY=http://p", "https_proxy=http://p")


def test_a_document_of_a_run_is_for_the_shell_or_a_script_of_its_own() -> None:
    assert run("RUN <<E\nX=$Y\nE").argv == ("/bin/sh", "-c", "X=$Y\n")
    assert run("RUN cat <<-E <<F\n\ta\n\tE\nb\nF").argv == ("/bin/sh", "-c", "cat <<-E <<F\n\ta\nE\nb\nF")
    node = run("RUN <<-script\n#!/bin/awk\n\tx\nscript")
    assert node.argv == ("/bin/sh", "-c", "/dev/pipes/script")
    (mount,) = node.mounts
    assert isinstance(mount.source, Files)
    assert mount.source.actions == (Mkfile(path="/script", data=b"#!/bin/awk\nx\n", mode=0o755),)


def test_mounts() -> None:
    node = run(
        "WORKDIR /w\nRUN --mount=type=cache,target=c --mount=from=other,src=/s/../t,target=/o "
        "--mount=type=secret,id=a/b --mount=type=secret,id=k,env=K --mount=type=ssh --mount=src=d,target=/d,rw x"
    )
    cache, other, file, variable, agent, bind = node.mounts
    assert (cache.kind, cache.target, cache.id, cache.source) == (MountKind.CACHE, "/w/c", "c", None)
    assert isinstance(other.source, ImageSource)
    assert (other.source_path, other.read_only) == ("/t", True)
    assert (file.target, file.id, variable.target, variable.env_name) == ("/run/secrets/b", "a/b", "", "K")
    assert (agent.kind, agent.id, agent.target) == (MountKind.SSH, "default", "")
    assert (bind.source_path, bind.read_only) == ("/d", False)
    assert locals_of(node)["context"].follow == ("d",)


def test_copies_say_where_from_where_to_and_how() -> None:
    node, (copy,) = copies("WORKDIR /w\nCOPY --chown=1:g --chmod=u+x --exclude=*.o a/../b ./c/ d/")
    assert (copy.paths, copy.destination) == (("/b", "/c"), "/w/d/")
    assert (copy.user, copy.mode, copy.exclude, copy.unpack, copy.literal) == ("1:g", "u+x", ("*.o",), False, False)
    assert locals_of(node)["context"].follow == ("b", "c")
    for text, destination in (("/x", "/x"), (".", "/w/"), ("y/..", "/w"), ("/", "/"), ("/../z/.", "/z/")):
        assert copies(f"WORKDIR /w\nCOPY a {text}")[1][0].destination == destination


def test_all_of_a_context_is_asked_for_as_no_paths() -> None:
    assert locals_of(copies("COPY . /x")[0])["context"].follow == ()
    node = plan("FROM base\nCOPY a /\nCOPY ../.. /\n", excludes={"context": ("*.o",)}).last
    assert locals_of(node)["context"] == next(one for one in walk(node) if isinstance(one, LocalSource))
    assert (locals_of(node)["context"].follow, locals_of(node)["context"].exclude) == ((), ("*.o",))


def test_parents_are_kept_below_the_pivot() -> None:
    source = "# syntax=docker/dockerfile:1\nFROM base\nCOPY --parents a/./b/*.c d /x/\n"
    node = plan(source).last
    assert isinstance(node, Files) and isinstance(node.actions[0], Copy)
    assert (node.actions[0].paths, node.actions[0].parents) == (("/a/./b/*.c", "/./d"), True)


def test_add_fetches_unpacks_and_takes_documents() -> None:
    sums = "sha256:" + "a" * 64
    _, (web,) = copies(f"ADD --checksum={sums} --chmod=600 https://h/p/f.tgz?x=1 /d/")
    assert isinstance(web.source, HttpSource)
    assert (web.source.url, web.source.filename, web.source.checksum) == ("https://h/p/f.tgz?x=1", "f.tgz", sums)
    assert (web.paths, web.literal, web.unpack) == (("/f.tgz",), True, False)
    _, (git,) = copies("ADD --keep-git-dir https://h/r.git#v1:sub /d")
    assert isinstance(git.source, GitSource)
    assert (git.source.url, git.source.ref, git.source.subdir) == ("https://h/r.git", "v1", "sub")
    assert (git.source.keep_git_dir, git.paths) == (True, ("/",))
    _, (local, document) = copies("ENV V=1\nADD a.tar <<f /d/\n$V\nf")
    assert (local.unpack, local.paths) == (True, ("/a.tar",))
    assert isinstance(document.source, Files)
    assert document.source.actions == (Mkfile(path="/f", data=b"1\n"),)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://h/r.git?branch=a&tag=b", "branch conflicts with tag"),
        ("https://h/r.git?ref=a#b", 'ref conflicts: "b" vs "a"'),
        ("https://h/r.git?odd=1", 'unexpected query "odd"'),
        ("https://h/r.git?subdir=", 'query "subdir" has no value'),
        ("https://h/r.git?keep-git-dir=maybe", 'invalid keep-git-dir value: "maybe"'),
    ],
)
def test_repositories_that_ask_for_nonsense(url: str, reason: str) -> None:
    with pytest.raises(DockerfileError) as failure:
        copies(f"ADD {url} /d")
    assert str(failure.value) == reason


def test_a_repository_whose_name_looks_like_an_option_is_none() -> None:
    _, (copy,) = copies("ADD -oProxyCommand=x@h:r /d")
    assert isinstance(copy.source, LocalSource)


def test_a_linked_copy_is_made_on_nothing_and_put_on_top() -> None:
    node = plan("FROM base\nCOPY --link --chown=me a /b\n").last
    assert isinstance(node, Merge) and isinstance(node.layer, Files)
    assert isinstance(node.base, ImageSource) and isinstance(node.layer.base, Scratch)
    assert (node.name, node.layer.name) == ("", "[2/2] COPY --link --chown=me a /b")


def test_workdir_is_made_by_the_user_in_force() -> None:
    node = plan("FROM base\nUSER 5\nWORKDIR a/../b\n", arguments={"SOURCE_DATE_EPOCH": "7"}).last
    assert isinstance(node, Files)
    assert node.actions == (Mkdir(path="/b", user="5", created_ns=7 * 10**9),)


def test_steps_run_always_where_that_is_asked_for() -> None:
    text = "FROM base AS one\nRUN a\nFROM one AS two\nRUN b\nCOPY c /\n"
    for more, names in (({}, ""), ({"no_cache": True}, "abc"), ({"no_cache_stages": frozenset(("TWO",))}, "bc")):
        nodes = [one for one in walk(plan(text, **more).last) if isinstance(one, Exec | Files)]
        marked = [one.name[-1] if isinstance(one, Exec) else "c" for one in nodes if one.no_cache]
        assert "".join(marked) == names


def test_named_contexts_take_the_place_of_stages_and_images() -> None:
    contexts = {
        "one": "docker-image://other",
        "base": "input:made",
        "dir": "local:folder",
        "repo": "https://h/r.git",
        "nothing": "docker-image://scratch",
    }
    solved = {"made": SolvedContext("digest", {"config": {"Env": ["MADE=1"], "WorkingDir": "/m"}})}
    found = plan(
        "FROM gone AS one\nRUN false\nFROM base\nCOPY --from=one /a /\nCOPY --from=dir x /\nCOPY --from=repo /y /\n"
        "COPY --from=nothing /z /\n",
        contexts=contexts,
        solved=solved,
        excludes={"folder": ("no",)},
    )
    kinds = {type(node) for node in walk(found.last)}
    assert kinds == {ImageSource, SolvedSource, LocalSource, GitSource, Scratch, Files}
    assert found.config["config"]["Env"] == [
        "MADE=1",
        "PATH=" + "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ]
    local = locals_of(found.last)["folder"]
    assert (local.follow, local.exclude, local.name) == (("x",), ("no",), "[context dir] load from client")


def test_only_images_that_are_needed_are_named_with_the_platform_wanted() -> None:
    text = "FROM unused AS a\nFROM --platform=$BUILDPLATFORM tool AS b\nFROM base\n"
    text += "COPY --from=b /x /\nCOPY --from=c:1 /y /\n"
    file = read_file(text.encode(), PlanOptions(host_platform="linux/amd64", platform="arm64"))
    assert {need.reference: need.platform for need in needed_images(file, {})} == {
        "docker.io/library/base:latest": "linux/arm64",
        "docker.io/library/tool:latest": "linux/amd64",
        "docker.io/library/c:1": "linux/arm64",
    }


def test_triggers_of_a_base_may_need_more_images() -> None:
    base = BaseImage("sha256:1", {**BASE.config, "config": {"OnBuild": ["COPY --from=more /a /a", "ENV T=1"]}})
    found = plan("FROM base\n", images={"base": base})
    assert isinstance(found.last, Files)
    assert found.last.name == "[2/3] ONBUILD COPY --from=more /a /a"
    assert "OnBuild" not in found.config["config"]
    for trigger, reason in (("FROM x", "FROM isn't allowed"), ("RUN a\nRUN b", "single expression"), ("", "empty")):
        wrong = BaseImage("sha256:1", {**BASE.config, "config": {"OnBuild": [trigger]}})
        with pytest.raises(DockerfileError, match=reason):
            plan("FROM base\n", images={"base": wrong})


def test_plans_of_hostile_files_are_refused_or_made_at_once() -> None:
    for text, reason in (
        ("FROM base\n" * 3000, "more than 2000 stages"),
        ("FROM base\nENV A=aaaaaaaaaa\n" + "ENV A=$A$A\n" * 40, "longer than 1048576 letters"),
        ("FROM base\nENV A=" + "a" * 60_000 + "\n" + "LABEL a=$A$A$A$A\n" * 100, "history of the image is longer"),
        ("FROM base\nRUN " + "--mount=type=tmpfs,target=/x " * 200 + "x\n", "more than 100 mounts"),
    ):
        with pytest.raises(DockerfileError, match=reason):
            plan(text)
    stages = "".join(f"FROM s{n} AS s{n + 1}\nCOPY --from=s{n} / /\nONBUILD RUN x\n" for n in range(300))
    assert len(walk(plan(f"FROM base AS s0\n{stages}").last)) == 600


def test_a_byte_0_in_an_argument_is_refused() -> None:
    with pytest.raises(DockerfileError, match='the value of "A" holds a byte 0'):
        plan("FROM base\n", arguments={"A": "x\0y"})


def test_history_gets_the_times_of_its_layers() -> None:
    lines = [
        {"created": "2020-01-01T00:00:00Z", "created_by": "base"},
        {"created_by": "ENV", "empty_layer": True},
        {"created_by": "RUN"},
        {"created_by": "CMD", "empty_layer": True},
    ]
    found = finish_config({"history": lines, "config": {}}, ["sha256:a", "sha256:b"], [None, 10**18])
    new = "2001-09-09T01:46:40Z"
    assert [one["created"] for one in found["history"]] == ["2020-01-01T00:00:00Z", new, new, new]
    assert (found["created"], found["rootfs"]["diff_ids"]) == (new, ["sha256:a", "sha256:b"])
    found = finish_config({"history": [], "config": {}}, ["sha256:a"], [10**18])
    assert found["history"] == [
        {"created": new, "created_by": "created by buildkit", "comment": "buildkit.exporter.image.v0"}
    ]
