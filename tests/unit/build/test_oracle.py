"""What dockerd 28.5.2 (BuildKit) made of some Dockerfiles, and what the plan says of them: the same.

`oracle.json` holds what that daemon answered: the image's configuration and history, the names of its steps, warnings,
or the error and the lines it marked. `ours` says where we differ on purpose: one range of lines where it marked two,
and the line itself where it marked the one before.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from bennu.build.dockerfile.failure import DockerfileError
from bennu.build.graph import walk
from bennu.build.plan.options import BaseImage, BuildPlan, ImageNeed, PlanOptions
from bennu.build.plan.planner import make_plan
from bennu.build.plan.read import needed_images, read_file

FACTS = json.loads((Path(__file__).parent / "oracle.json").read_text())
BASES = FACTS["bases"]
BUILDS = {build["name"]: build for build in FACTS["builds"]}


def read_options(flags: list[str]) -> PlanOptions:
    arguments, labels, contexts, more = {}, {}, {}, {}
    for flag, value in zip(flags[::2], flags[1::2], strict=True):
        name, _, text = value.partition("=")
        match flag:
            case "--build-arg":
                arguments[name] = text
            case "--label":
                labels[name] = text
            case "--build-context":
                contexts[name] = text
            case other:
                more[other.removeprefix("--")] = value
    return PlanOptions(host_platform="linux/amd64", arguments=arguments, labels=labels, contexts=contexts, **more)


def plan(build: dict[str, Any]) -> tuple[BuildPlan, set[ImageNeed]]:
    file = read_file(build["dockerfile"].encode(), read_options(build.get("flags", [])))
    known: dict[ImageNeed, BaseImage] = {}
    while needs := needed_images(file, known):
        for need in needs:
            name = need.reference.removeprefix("docker.io/library/").removesuffix(":latest")
            known[need] = BaseImage(f"sha256:{name}", BASES[name])
    return make_plan(file, known), set(known)


@pytest.mark.parametrize("name", [name for name, build in BUILDS.items() if "config" in build])
def test_a_build_that_dockerd_made(name: str) -> None:
    build = BUILDS[name]
    found, needs = plan(build)
    assert found.config["config"] == build["config"]
    history = [{k: v for k, v in entry.items() if k != "created"} for entry in found.config["history"]]
    assert history == build["history"]
    assert {key: value for key, value in found.config.items() if key not in ("config", "history")} == build["facts"]
    names = {node.name for node in walk(found.last)} | {need.name for need in needs}
    assert names - {""} == set(build["vertices"])
    assert sorted(warning.text for warning in found.warnings) == sorted(build.get("warnings", []))


@pytest.mark.parametrize("name", [name for name, build in BUILDS.items() if "error" in build])
def test_a_dockerfile_that_dockerd_refused(name: str) -> None:
    build = BUILDS[name]
    wanted = build | build.get("ours", {})
    with pytest.raises(DockerfileError) as failure:
        plan(build)
    assert str(failure.value) == wanted["error"]
    at = failure.value.location
    assert (list(range(at.first, at.last + 1)) if at else []) == wanted["lines"]
