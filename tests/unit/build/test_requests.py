"""What may be asked of a Dockerfile instead of a build: the JSON that dockerd 28.5.2 answers."""

import base64
import json
from typing import Any

import pytest

from bennu.build.dockerfile.failure import DockerfileError
from bennu.build.plan.options import BaseImage, ImageNeed, PlanError, PlanOptions
from bennu.build.plan.planner import lint, make_plan
from bennu.build.plan.read import BuildFile, KnownImages, needed_images, read_file
from bennu.build.plan.requests import answer_lint, answer_outline, answer_targets

SOURCE = b"""\
# VERSION is what is built
ARG VERSION=1
ARG UNUSED=2
ARG IMAGE=base
ARG REF=${IMAGE}:latest
# base is where all begins
FROM ${REF} AS base
# TOKEN is odd
ARG TOKEN=t LEVEL=$TOKEN-x
ARG VERSION
RUN --mount=type=secret,id=key,required --mount=type=ssh true
FROM base AS tool
ARG MODE
RUN --mount=type=secret,id=other true
FROM scratch AS other
ARG NOT
FROM base
COPY --from=tool /etc /x
ARG LAST
CMD echo hi
"""


def read(source: bytes, **more: Any) -> tuple[BuildFile, KnownImages]:
    file = read_file(source, PlanOptions(host_platform="linux/amd64", **more))
    known: dict[ImageNeed, BaseImage] = {}
    while needs := needed_images(file, known):
        known |= {need: BaseImage("sha256:1", {"rootfs": {"diff_ids": ["sha256:2"]}}) for need in needs}
    return file, known


def where(line: int) -> dict[str, Any]:
    return {"ranges": [{"start": {"line": line}, "end": {"line": line}}]}


def test_the_outline_tells_what_the_target_and_what_it_needs_may_be_given() -> None:
    file, known = read(SOURCE, arguments={"MODE": "m"})
    outline = json.loads(answer_outline(file, SOURCE, make_plan(file, known))["result.json"])
    assert outline == {
        "args": [
            {"name": "VERSION", "description": "is what is built", "value": "1", "location": where(2)},
            {"name": "IMAGE", "value": "base", "location": where(4)},
            {"name": "REF", "value": "base:latest", "location": where(5)},
            {"name": "TOKEN", "description": "is odd", "value": "t", "location": where(9)},
            {"name": "LEVEL", "value": "t-x", "location": where(9)},
            {"name": "MODE", "value": "m", "location": where(13)},
            {"name": "LAST", "location": where(19)},
        ],
        "secrets": [
            {"name": "key", "required": True, "location": where(11)},
            {"name": "other", "location": where(14)},
        ],
        "ssh": [{"name": "default", "location": where(11)}],
        "sources": [base64.b64encode(SOURCE).decode()],
    }


def test_the_targets_are_all_stages() -> None:
    targets = json.loads(answer_targets(SOURCE)["result.json"])["targets"]
    assert targets[0] == {"name": "base", "description": "is where all begins", "base": "${REF}", "location": where(7)}
    assert [target.get("name") for target in targets] == ["base", "tool", "other", None]
    assert targets[3] == {"default": True, "base": "base", "location": where(17)}


def test_a_check_tells_warnings_and_fails_for_them() -> None:
    file, known = read(SOURCE)
    answer = answer_lint("Dockerfile", SOURCE, *lint(file, known))
    found = json.loads(answer["result.json"])
    assert [warning["ruleName"] for warning in found["warnings"]] == ["SecretsUsedInArgOrEnv", "JSONArgsRecommended"]
    assert found["warnings"][1] == {
        "ruleName": "JSONArgsRecommended",
        "description": "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS "
        "signals",
        "url": "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/",
        "detail": "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
        "location": where(20),
    }
    assert answer["result.statuscode"] == b"1"
    clean = b"FROM base\nRUN true\n"
    assert answer_lint("Dockerfile", clean, *lint(*read(clean)))["result.statuscode"] == b"0"


def test_a_check_of_a_dockerfile_that_cannot_be_built_says_why_and_what_else_was_noticed() -> None:
    with pytest.raises(PlanError) as failure:
        read_file(b"ARG VERSION\nFROM $VERSON\n", PlanOptions(host_platform="linux/amd64"))
    found = json.loads(answer_lint("Dockerfile", b"", failure.value.warnings, failure.value)["result.json"])
    assert found["buildError"] == {"message": "base name ($VERSON) should not be blank", "location": where(2)}
    assert [warning["detail"] for warning in found["warnings"]] == [
        "Default value for ARG $VERSON results in empty or invalid base image name",
        "FROM argument 'VERSON' is not declared (did you mean VERSION?)",
    ]


def test_stages_that_are_not_needed_are_checked_too_when_no_target_is_named() -> None:
    source = b"FROM base AS unused\nMAINTAINER me\nCMD x\nFROM base\n"
    file = read_file(source, PlanOptions(host_platform="linux/amd64"), all_stages=True)
    known = {need: BaseImage("sha256:1", {"rootfs": {"diff_ids": ["sha256:2"]}}) for need in needed_images(file, {})}
    warnings, error = lint(file, known)
    assert [warning.rule.name for warning in warnings] == ["MaintainerDeprecated", "JSONArgsRecommended"]
    assert error is None


def test_rules_can_be_skipped_and_made_to_fail() -> None:
    for head, names in ((b"skip=JSONArgsRecommended", ["MaintainerDeprecated"]), (b"skip=all", [])):
        source = b"# check=" + head + b"\nFROM base\nMAINTAINER x\nCMD x\n"
        file, known = read(source)
        assert [warning.rule.name for warning in make_plan(file, known).warnings] == names
    file, known = read(b"# check=error=true\nFROM base\nCMD x\n")
    with pytest.raises(DockerfileError, match="lint violation found for rules: JSONArgsRecommended"):
        make_plan(file, known)
