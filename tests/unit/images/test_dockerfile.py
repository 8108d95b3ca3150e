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
    assert seen.show(f"[2/2] STEP 1/5: FROM {'e' * 64}")[0] == "Step 3/7 : FROM --platform=linux/amd64 alpine"
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


NEEDS_TWO = "requires at least two arguments, but only one was provided. Destination could not be determined"
TO_FOLDER = "with more than one source file, the destination must be a directory and end with a /"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        *(
            (word, f"{word} requires at least one argument")
            for word in ("ARG", "ENV", "LABEL", "EXPOSE", "RUN", "VOLUME")
        ),
        *((word, f"{word} requires at least one argument") for word in ("SHELL", "SHELL []", "HEALTHCHECK")[::2]),
        *((word, f"{word} requires exactly one argument") for word in ("MAINTAINER", "STOPSIGNAL", "USER", "WORKDIR")),
        *((f"{word} =x", f"{word} names can not be blank") for word in ("ARG", "ENV", "LABEL")),
        ("ARG a=1 =2", "ARG names can not be blank"),
        ("ENV a", "ENV must have two arguments"),
        ("LABEL a=b c", 'Syntax error - can\'t find = in "c". Must be of the form: name=value'),
        ('ENV a="b', "unexpected end of statement while looking for matching double-quote"),
        ("ENV a='b\\'c'", "unexpected end of statement while looking for matching single-quote"),
        ("EXPOSE x", "Invalid containerPort: x"),
        ("EXPOSE 80 99999", "Invalid containerPort: 99999"),
        ("EXPOSE 80-70", "Invalid containerPort: 80-70"),
        ("EXPOSE 80-", "Invalid containerPort: 80-"),
        ("EXPOSE 80/xyz", "Invalid proto: xyz"),
        *((f"{word}{rest}", f"{word} {NEEDS_TWO}") for word in ("ADD", "COPY") for rest in ("", " f", ' ["f"]')),
        *((f"{word} f g /x", f"When using {word} {TO_FOLDER}") for word in ("ADD", "COPY")),
        ("VOLUME []", "VOLUME requires at least one argument"),
        ('VOLUME ["/a", ""]', "VOLUME specified can not be an empty string"),
        ("SHELL []", "SHELL requires at least one argument"),
        ("SHELL sh", "SHELL requires the arguments to be in JSON form"),
        ("HEALTHCHECK x", 'Unknown type "X" in HEALTHCHECK (try CMD)'),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK --interval=1us CMD a", 'Interval "interval" cannot be less than 1ms'),
        ("HEALTHCHECK --retries=-1 CMD a", "--retries cannot be negative (-1)"),
        ("FROM x AS first", "first stage name already used"),
    ],
)
def test_a_malformed_instruction_is_refused_with_its_line(line: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parse_dockerfile(f"FROM busybox AS First\n\n{line}\n", {})
    assert str(caught.value) == f"dockerfile parse error on line 3: {message}"


@pytest.mark.parametrize(
    "line",
    [
        *(
            "ENV a b c",
            'ENV a="b c" d=\'"\'',
            "ENV a=it\\'s",
            "LABEL a= ",
            "ARG a b=1",
            "EXPOSE 80/tcp 90-95/udp $PORT",
        ),
        *("EXPOSE 127.0.0.1:80:8080", "COPY f g /x/", "COPY f g .", 'COPY ["f", "g", "./"]', "ADD f g $dir"),
        *("HEALTHCHECK NONE", "HEALTHCHECK --retries=0 CMD true", 'SHELL ["a"]', "VOLUME /a /b", "WORKDIR a b"),
        *("RUN echo 'x", 'CMD ["a"', "ONBUILD RUN"),
    ],
)
def test_what_docker_takes_is_taken(line: str) -> None:
    assert parse_dockerfile(f"FROM busybox\n{line}\n", {}).step_count == 2


def test_the_names_of_stages_know_no_case() -> None:
    text = "FROM a AS Base\nFROM BASE AS Next\nCOPY --from=bAsE /x /x\nCOPY --from=1 /y /y\n"
    found = parse_dockerfile(text, {})
    assert found.images() == ["a", "1"]
    assert found.rewritten({"a": "ID", "1": "ID1"}).splitlines()[1:] == [
        *("FROM ID AS base", "FROM base AS next", "COPY --from=base /x /x", "COPY --from=ID1 /y /y")
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "FROM --platform=foobar x",
            'failed to parse platform foobar: "foobar": unknown operating system or architecture',
        ),
        ("FROM scratch", "No image was generated. Is your Dockerfile empty?"),
        ("\n\n \n", "file with no instructions"),
        ("# comment", "file with no instructions"),
    ],
)
def test_a_file_that_makes_no_image_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parse_dockerfile(text, {})
    assert str(caught.value).startswith(message)


def test_the_last_words_of_a_step_need_no_end_of_line() -> None:
    output = transcript("FROM busybox:1 AS a\nRUN printf one\nRUN printf two\nFROM a\nRUN printf 'STEP 9/9: x'\n")
    lines = [
        *("[1/2] STEP 1/3: FROM id", "[1/2] STEP 2/3: RUN printf one", "one[1/2] STEP 3/3: RUN printf two"),
        *("two--> 0123456789ab", "[2/2] STEP 1/2: FROM a", "[2/2] STEP 2/2: RUN printf 'STEP 9/9: x'"),
        "STEP 9/9: x[2/2] COMMIT",
    ]
    shown = "".join(text for line in lines for text in output.show(line))
    assert [line for line in shown.splitlines() if not line.startswith("Step")] == [
        *(f" ---> {'f' * 12}", "one", "two", " ---> 0123456789ab", "STEP 9/9: x")
    ]
    assert "Step 3/5 : RUN printf two\n" in shown


def test_a_failure_behind_words_without_an_end_is_told() -> None:
    output = transcript("FROM busybox:1\nRUN printf no; exit 3\n")
    for line in ("STEP 1/2: FROM id", "STEP 2/2: RUN printf no; exit 3"):
        output.show(line)
    error = 'noError: building at STEP "RUN printf no; exit 3": while running runtime: exit status 3'
    assert output.show(error) == ["no\n"]
    assert output.failure() == ("The command '/bin/sh -c printf no; exit 3' returned a non-zero code: 3", 3)


@pytest.mark.parametrize(
    ("last", "message"),
    [
        (
            "Error: resolving step {Value:env Next:0xc00 Children:[] Attributes:map[] Original:ENV a=${b Flags:[] "
            "StartLine:3 EndLine:3}: Missing ':' in substitution: ${b",
            "dockerfile parse error on line 4: Missing ':' in substitution: ${b",
        ),
        (
            'Error: building at STEP "STOPSIGNAL X": Invalid signal: X',
            "dockerfile parse error on line 1: Invalid signal: X",
        ),
        (
            "Error: parsing main Dockerfile: /var/lib/x/Dockerfile: it is odd",
            "dockerfile parse error on line 1: it is odd",
        ),
    ],
)
def test_what_the_builder_wraps_a_reason_in_is_not_shown(last: str, message: str) -> None:
    output = transcript("FROM busybox:1\n\n# note\nENV a=${b\n")
    output.show("STEP 1/2: FROM id")
    output.show(last)
    assert output.failure() == (message, None)


def test_a_program_cannot_take_the_builders_place() -> None:
    output = transcript("FROM busybox:1\nRUN cat words\n")
    for line in ("STEP 1/2: FROM id", "STEP 2/2: RUN cat words"):
        output.show(line)
    for line in ("STEP 1/2: x", "[7/7] STEP 1/1: x", "[9/9] STEP 3/2: x", "a[8/8] STEP 1/1: b"):
        assert output.show(line) == [f"{line}\n"]
