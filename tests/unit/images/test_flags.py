"""What a Dockerfile may ask of its builder: as the classic builder of Docker 28 has it, and never more."""

import pytest

from bennu.errors import BennuError, InvalidParameter, NotImplementedHere
from bennu.images.dockerfile_stages import parse_dockerfile

HELP = "https://docs.docker.com/go/buildkit/"
BUILDKIT = f"requires BuildKit. Refer to {HELP} to learn how to build images with BuildKit enabled"
LINE_2 = "dockerfile parse error on line 2: "
BASE = "f" * 64


def rewritten(*lines: str) -> list[str]:
    """The lines after the first FROM, as the builder gets them."""
    dockerfile = parse_dockerfile("\n".join(["FROM base", *lines]), {})
    return dockerfile.rewritten(dict.fromkeys(dockerfile.images(), BASE)).splitlines()[2:]


@pytest.mark.parametrize(
    ("line", "kind", "message"),
    [
        ("RUN --mount=type=tmpfs,target=/x true", NotImplementedHere, f"the --mount option {BUILDKIT}"),
        ("RUN --mount=bogus true", NotImplementedHere, f"the --mount option {BUILDKIT}"),
        ("RUN --network=none true", NotImplementedHere, f"the --network option {BUILDKIT}"),
        ("RUN --device=x true", NotImplementedHere, f"the --device option {BUILDKIT}"),
        ("RUN \\\n  --mount=type=tmpfs,target=/x true", NotImplementedHere, f"the --mount option {BUILDKIT}"),
        ("RUN\t--mount=type=tmpfs,target=/x true", NotImplementedHere, f"the --mount option {BUILDKIT}"),
        ('RUN --"mount"=type=tmpfs,target=/x true', NotImplementedHere, f"the --mount option {BUILDKIT}"),
        ("RUN --mo\\unt=type=tmpfs,target=/x true", NotImplementedHere, f"the --mount option {BUILDKIT}"),
        (
            "RUN\u00a0--mount=type=tmpfs,target=/x true",
            InvalidParameter,
            LINE_2 + "unknown instruction: RUN\u00a0--MOUNT=",
        ),
        ("RUN \u00a0--mount=type=tmpfs,target=/x true", NotImplementedHere, f"the --mount option {BUILDKIT}"),
        ("RUN -- --mount=type=tmpfs,target=/x true", InvalidParameter, LINE_2 + "unknown flag: --mount="),
        ("RUN --mount true", InvalidParameter, LINE_2 + "missing a value on flag: --mount"),
        ("RUN --security=insecure true", InvalidParameter, LINE_2 + "unknown flag: --security"),
        ("RUN --foo true", InvalidParameter, LINE_2 + "unknown flag: --foo"),
        ("COPY --exclude=x a /x", NotImplementedHere, f"the --exclude option {BUILDKIT}"),
        ("COPY --parents a /x", InvalidParameter, LINE_2 + "unknown flag: --parents"),
        ("COPY --from=a --from=b x /x", InvalidParameter, LINE_2 + "duplicate flag specified: --from"),
        ("COPY --link=maybe a /x", InvalidParameter, LINE_2 + "expecting boolean value for flag --link, not: maybe"),
        ("COPY --chown=\u00e0--from=dir:/etc a /x", InvalidParameter, LINE_2 + "invalid value for flag --chown"),
        ('COPY --chown="1 --from=dir:/etc" a /x', InvalidParameter, LINE_2 + "invalid value for flag --chown"),
        ("ADD --checksum=sha256:00 a /x", NotImplementedHere, f"the --checksum option {BUILDKIT}"),
        ("ADD --keep-git-dir=true a /x", NotImplementedHere, f"the --keep-git-dir option {BUILDKIT}"),
        ("ADD --unpack=true a /x", NotImplementedHere, f"the --unpack option {BUILDKIT}"),
        ("ADD --from=x a /x", InvalidParameter, LINE_2 + "unknown flag: --from"),
        ("ADD git@github.com:x/y.git /x", NotImplementedHere, f"adding a repository {BUILDKIT}"),
        ('ADD ["https://h/x.git#main", "/x"]', NotImplementedHere, f"adding a repository {BUILDKIT}"),
        ("RUN <<EOF\necho hi\nEOF", NotImplementedHere, f"the heredoc syntax {BUILDKIT}"),
        ("RUN cat 3<<-'EOF'\nhi\nEOF", NotImplementedHere, f"the heredoc syntax {BUILDKIT}"),
        ("COPY <<EOF /x\nhi\nEOF", NotImplementedHere, f"the heredoc syntax {BUILDKIT}"),
        ("HEALTHCHECK --x=1 CMD true", InvalidParameter, LINE_2 + "unknown flag: --x"),
        ("WORKDIR --x /a", InvalidParameter, LINE_2 + "unknown flag: --x"),
        ("ONBUILD", InvalidParameter, LINE_2 + "ONBUILD requires at least one argument"),
        ("ONBUILD FROM x", InvalidParameter, LINE_2 + "FROM isn't allowed as an ONBUILD trigger"),
        ("ONBUILD ONBUILD RUN x", InvalidParameter, LINE_2 + "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
    ],
)
def test_what_the_classic_builder_cannot_do_is_refused(line: str, kind: type[BennuError], message: str) -> None:
    with pytest.raises(kind) as caught:
        rewritten(line)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("line", "passed_on"),
    [
        ("RUN\techo tab tab", "RUN\techo tab tab"),
        ("RUN -- true", "RUN -- true"),
        ('RUN ["--mount=x"]', 'RUN ["--mount=x"]'),
        ("RUN cat <<<here; echo $((1<<2)) $(( 1 << 2 ))", "RUN cat <<<here; echo $((1<<2)) $(( 1 << 2 ))"),
        ("COPY --link a /x", "COPY a /x"),
        ("COPY --from=other --chown=1:$GROUP --link=true /a /x", f"COPY --from={BASE} --chown=1:$GROUP /a /x"),
        ('ADD --chown=a --chmod=755 ["a b", "/x"]', 'ADD --chown=a --chmod=755 ["a b", "/x"]'),
        ("ADD https://h/x.tar.gz /x", "ADD https://h/x.tar.gz /x"),
        ("HEALTHCHECK --interval=1s CMD true", "HEALTHCHECK --interval=1s CMD true"),
        ("ONBUILD RUN --mount=type=tmpfs,target=/x true", "ONBUILD RUN --mount=type=tmpfs,target=/x true"),
    ],
)
def test_what_it_can_do_is_passed_on(line: str, passed_on: str) -> None:
    assert rewritten(line) == [passed_on]


def test_a_stage_does_not_copy_from_itself_but_from_an_image_of_that_name() -> None:
    dockerfile = parse_dockerfile("FROM base AS self\nCOPY --from=self /a /a\nFROM base\nCOPY --from=self /a /a", {})
    assert dockerfile.images() == ["base", "self"]
    assert dockerfile.rewritten({"base": BASE, "self": "0" * 64}).splitlines()[2:] == [
        f"COPY --from={'0' * 64} /a /a",
        f"FROM {BASE}",
        "COPY --from=self /a /a",
    ]


@pytest.mark.parametrize(
    ("trigger", "message"),
    [
        ("RUN --mount=type=tmpfs,target=/x true", f"the --mount option {BUILDKIT}"),
        ("RUN true\nRUN --mount=type=tmpfs,target=/x true", "onbuild trigger should be a single expression"),
        ("RUN true \\", "onbuild trigger should be a single expression"),
        ("RUN true `", "onbuild trigger should be a single expression"),
        ("RUN true\r", "onbuild trigger should be a single expression"),
        ("# escape=x", "unknown instruction: #"),
        ("FROM dir:/etc", "FROM isn't allowed as an ONBUILD trigger"),
        ("ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("COPY --from=dir:/etc . /", "copying from the image dir:/etc in an ONBUILD trigger is not implemented"),
        ("", "unknown instruction: "),
    ],
)
def test_a_trigger_of_a_base_is_looked_at_when_it_is_to_be_done(trigger: str, message: str) -> None:
    dockerfile = parse_dockerfile("FROM base", {})
    with pytest.raises(BennuError) as caught:
        dockerfile.check_triggers({"base": [trigger]})
    assert str(caught.value) == message
    parse_dockerfile("FROM other", {}).check_triggers({"base": [trigger]})


def test_triggers_copy_from_stages_that_are_there() -> None:
    dockerfile = parse_dockerfile("FROM base AS one\nONBUILD COPY --from=zero /a /a\nFROM one", {})
    with pytest.raises(NotImplementedHere):
        dockerfile.check_triggers({})
    dockerfile = parse_dockerfile("FROM base AS zero\nFROM base AS one\nONBUILD COPY --from=zero /a /a\nFROM one", {})
    dockerfile.check_triggers({})
