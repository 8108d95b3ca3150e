"""What a builder reads in a Dockerfile, and what is made of buildah's words."""

import pytest

from bennu.errors import InvalidParameter
from bennu.images.build_output import BuildOutput
from bennu.images.dockerfile_stages import parse_dockerfile

TWO_STAGES = """\
# syntax=docker/dockerfile:1
ARG BASE=busybox
ARG VERSION=1
FROM ${BASE}:$VERSION AS Build
RUN echo a && \\
    # inside
    echo b

FROM --platform=linux/amd64 alpine
COPY --from=build /x /x
COPY --from=nginx:1 /y /y
COPY --from=0 /z /z
CMD ["x"]
"""


def test_the_images_from_outside_are_bases_and_sources_that_are_no_stages() -> None:
    assert parse_dockerfile(TWO_STAGES, {}).images() == ["busybox:1", "alpine", "nginx:1"]


def test_arguments_choose_the_base() -> None:
    found = parse_dockerfile(TWO_STAGES, {"BASE": "debian", "VERSION": None})
    assert found.stages[0].base == "debian:1"


def test_a_target_ends_the_file_there() -> None:
    found = parse_dockerfile(TWO_STAGES, {}, "BUILD")
    assert found.images() == ["busybox:1"]
    assert found.step_count == 2
    with pytest.raises(InvalidParameter, match='target stage "nope" could not be found'):
        parse_dockerfile(TWO_STAGES, {}, "nope")


def test_rewriting_replaces_images_and_nothing_else() -> None:
    found = parse_dockerfile(TWO_STAGES, {})
    text = found.rewritten({"busybox:1": "ID1", "alpine": "ID2", "nginx:1": "ID3"})
    assert text.splitlines() == [
        "# escape=\\",
        "ARG BASE=busybox",
        "ARG VERSION=1",
        "FROM ID1 AS build",
        "RUN echo a &&     echo b",
        "FROM ID2",
        "COPY --from=build /x /x",
        "COPY --from=ID3 /y /y",
        "COPY --from=0 /z /z",
        'CMD ["x"]',
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "file with no instructions"),
        ("# only\n", "file with no instructions"),
        ("ARG X\n", "no build stage in current context"),
        ("RUN x\n", "dockerfile parse error on line 1: no build stage in current context"),
        ("FROM a\nFOO bar\n", "dockerfile parse error on line 2: unknown instruction: FOO"),
        ("FROM a b\n", "dockerfile parse error on line 1: FROM requires either one or three arguments"),
        ("FROM $X\n", "base name ($X) should not be blank"),
        ("# escape=x\nFROM a\n", "invalid ESCAPE 'x'. Must be ` or \\"),
    ],
)
def test_a_file_that_cannot_be_built_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parse_dockerfile(text, {})
    assert str(caught.value) == message


def transcript(text: str) -> BuildOutput:
    return BuildOutput(parse_dockerfile(text, {}), 0, {"busybox:1": "f" * 64})


def test_steps_are_counted_through_all_stages() -> None:
    seen = transcript(TWO_STAGES)
    assert seen.show(f"[1/2] STEP 1/2: FROM {'f' * 64} AS build") == [
        "Step 1/7 : FROM ${BASE}:$VERSION AS Build",
        "\n",
        f" ---> {'f' * 12}\n",
    ]
    assert seen.show("[1/2] STEP 2/2: RUN echo a &&     echo b")[0] == "Step 2/7 : RUN echo a &&     echo b"
    assert seen.show("[2/2] STEP 2/5: COPY --from=build /x /x")[0] == "Step 4/7 : COPY --from=build /x /x"
    assert seen.show(f"--> Using cache {'0' * 64}") == [" ---> Using cache\n"]
    assert seen.show("hello") == ["hello\n"]
    assert seen.show("[2/2] COMMIT") == []


@pytest.mark.parametrize(
    ("dockerfile", "step", "last", "message", "code"),
    [
        (
            "FROM busybox:1\nRUN exit 7",
            "STEP 2/2: RUN exit 7",
            ['Error: building at STEP "RUN exit 7": while running runtime: exit status 7'],
            "The command '/bin/sh -c exit 7' returned a non-zero code: 7",
            7,
        ),
        (
            'FROM busybox:1\nRUN ["false", "x"]',
            "STEP 2/2: RUN false x",
            ['Error: error building at STEP "RUN false x": error while running runtime: exit status 1'],
            "The command 'false x' returned a non-zero code: 1",
            1,
        ),
        (
            "FROM busybox:1\nCOPY nofile /",
            "STEP 2/2: COPY nofile /",
            [
                'Error: building at STEP "COPY nofile /": checking on sources under "/c": '
                'copier: stat: "/nofile": no such file or directory'
            ],
            "COPY failed: file not found in build context or excluded by .dockerignore: stat nofile: "
            "file does not exist",
            None,
        ),
    ],
)
def test_a_failure_is_told_in_dockers_words(
    dockerfile: str, step: str, last: list[str], message: str, code: int | None
) -> None:
    seen = transcript(dockerfile)
    seen.show("STEP 1/2: FROM busybox:1")
    seen.show(step)
    for line in last:
        assert seen.show(line) == []
    assert seen.failure() == (message, code)


def test_a_steps_own_line_that_looks_like_a_failure_is_shown_when_the_build_goes_on() -> None:
    seen = transcript("FROM busybox:1\nRUN x")
    seen.show("STEP 2/2: RUN x")
    assert seen.show("Error: not yours") == []
    assert seen.show("next") == ["Error: not yours\n", "next\n"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param("FROM a\nHEALTHCHECK --start-interval=2s --retries=3 CMD true", 2 * 10**9, id="its own"),
        pytest.param("FROM a\nHEALTHCHECK --start-interval=2s CMD x\nHEALTHCHECK CMD x", 0, id="the last counts"),
        pytest.param("FROM a\nHEALTHCHECK --start-interval=2s CMD x\nHEALTHCHECK NONE", 0, id="none"),
        pytest.param("FROM a AS b\nHEALTHCHECK --start-interval=2s CMD x\nFROM b\nENV A=1", 2 * 10**9, id="by stage"),
        pytest.param("FROM a AS b\nHEALTHCHECK --start-interval=2s CMD x\nFROM c\nENV A=1", "c", id="of an image"),
    ],
)
def test_the_start_interval_of_a_check_is_known_though_its_builder_does_not_know_it(
    text: str, found: int | str
) -> None:
    dockerfile = parse_dockerfile(text, {})
    assert dockerfile.start_interval() == found
    assert "start-interval" not in dockerfile.rewritten({})
    assert dockerfile.rewritten({}).count("HEALTHCHECK") == text.count("HEALTHCHECK")


def test_a_start_interval_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidParameter):
        parse_dockerfile("FROM a\nHEALTHCHECK --start-interval=soon CMD true", {}).start_interval()
