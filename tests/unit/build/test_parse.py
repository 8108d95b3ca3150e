"""Lines, heredocs and flags of Dockerfiles, and that no file takes long. Much else is in `test_oracle.py`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bennu.build.dockerfile.failure import DockerfileError, suggest
from bennu.build.dockerfile.lines import MAX_FILE, MAX_INSTRUCTIONS, detect_syntax, read_lines
from bennu.build.dockerfile.mounts import MountRequest, parse_mount, split_csv
from bennu.build.dockerfile.parse import has_newer_flags, parse
from bennu.build.dockerfile.statements import CopyStatement, RunStatement, StageStatement
from bennu.build.graph import Location, MountKind


def statements(text: str) -> list[StageStatement]:
    return parse(f"FROM x\n{text}".encode()).stages[0].statements


def run(text: str) -> RunStatement:
    (found,) = statements(text)
    assert isinstance(found, RunStatement)
    return found


def copy(text: str) -> CopyStatement:
    (found,) = statements(text)
    assert isinstance(found, CopyStatement)
    return found


@pytest.mark.parametrize(
    ("text", "words", "last_line"),
    [
        ("RUN a \\\n  b", "a   b", 3),
        ("RUN a \\  \n# c\n\n  b \\\n # d\nc", "a   b c", 7),
        ("RUN a \\\\\nRUN b", "a \\\\", 2),
        ("RUN a \\", "a", 2),
        ("RUN a \\\n\n\n", "a", 4),
        ("  run\ta\r\n", "a", 2),
        ("RUN  # not a comment", "# not a comment", 2),
    ],
)
def test_continued_lines_are_joined(text: str, words: str, last_line: int) -> None:
    found = statements(text)[0]
    assert isinstance(found, RunStatement)
    assert (found.words, found.location) == ((words,), Location(2, last_line))


def test_documents_of_a_run_are_read_to_their_names() -> None:
    found = run("RUN <<A cat && <<-'B' 5<<C x\n1\nA\n\t2\n\tB\n3\nC\n")
    assert [(one.name, one.expand, one.tabs_go, one.text) for one in found.heredocs] == [
        ("A", True, False, "1\n"),
        ("B", False, True, "2\n"),
        ("C", True, False, "3\n"),
    ]
    assert found.location == Location(2, 8)


def test_a_document_is_no_document_in_json_in_quotes_or_elsewhere() -> None:
    assert run('RUN ["cat", "<<EOF"]').heredocs == ()
    assert run("RUN echo '<<EOF'").heredocs == ()
    assert run("RUN cat <<<EOF").heredocs == ()
    assert [one.word for one in statements("ENV A=<<EOF\nENV B=1")] == ["ENV", "ENV"]


def test_documents_of_a_copy_come_beside_its_paths() -> None:
    found = copy('COPY --chown=1:2 a <<B <<"C" /d/\nb\nB\nc\nC\n')
    assert (found.paths, [one.name for one in found.documents], found.destination) == (("a",), ["B", "C"], "/d/")


def test_flags_lose_their_quotes_and_escapes() -> None:
    found = copy("COPY --from='a b' --exclude=\"x y\" --exclude=z\\ w --link=FALSE -- --odd d")
    assert (found.source, found.exclude, found.link, found.paths) == ("a b", ("x y", "z w"), False, ("--odd",))


def test_json_is_tried_and_else_it_is_for_the_shell() -> None:
    assert run('RUN ["a", "b c"]').words == ("a", "b c")
    assert run('RUN ["a", "b c"').shell
    assert run("RUN ['a']").words == ("['a']",)
    assert copy('COPY ["a b", "c"]').paths == ("a b",)
    assert run("RUN " + "[" * 50_000).shell


@pytest.mark.parametrize(
    ("source", "syntax"),
    [
        ("# syntax=docker/dockerfile:1", "docker/dockerfile:1"),
        ("#!/x\n# escape=`\n#SYNTAX = a/b:c more\n", "a/b:c"),
        ("// syntax=x", "x"),
        ("# comment\n# syntax=x", ""),
        ("\n# syntax=x", ""),
        ("\ufeff# check=skip=all\n# syntax=x\r\n", "x"),
    ],
)
def test_syntax(source: str, syntax: str) -> None:
    assert detect_syntax(source.encode()) == syntax


@pytest.mark.parametrize(
    ("syntax", "newer"),
    [
        *(("", False), ("docker/dockerfile:1.7", False), ("docker/dockerfile:1.19.0", False)),
        *(("docker/dockerfile:1", True), ("docker/dockerfile", True), ("docker/dockerfile:1.20", True)),
        *(("docker/dockerfile:1.7-labs", True), ("docker/dockerfile-upstream:master", True)),
    ],
)
def test_newer_flags_are_for_files_that_name_a_newer_version(syntax: str, newer: bool) -> None:
    assert has_newer_flags(syntax) is newer
    source = f"# syntax={syntax}\nFROM x\nCOPY --parents a b\n".encode() if syntax else b"FROM x\nCOPY --parents a b\n"
    if newer:
        parse(source)
    else:
        with pytest.raises(DockerfileError, match="unknown flag: --parents"):
            parse(source)


def same(text: str) -> str:
    return text


def test_mounts() -> None:
    found = parse_mount("type=cache,target=/c,id=i,sharing=Locked,mode=0700,uid=1,gid=2,ro", same)
    kind = MountKind.CACHE
    assert found == MountRequest(kind, "", "", "/c", True, "i", "locked", False, 0, 0o700, 1, 2, None)
    assert parse_mount("target=/x,rw=1", same).read_only is False
    assert parse_mount("dst=/x,from=y,src=/z", same).read_only is True
    assert parse_mount("type=tmpfs,target=/t,size=1.5m", same).size == 1_572_864
    assert parse_mount("type=secret,id=s,env=", same).env == ""
    assert parse_mount("type=$T,target=/x", lambda text: text.replace("$T", "ssh")).kind is MountKind.SSH


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("type=bin", 'unsupported mount type "bin" (did you mean bind?)'),
        ("target", "invalid field 'target' must be a key=value pair"),
        ("tarrget=/x", "unexpected key 'tarrget' in 'tarrget=/x' (did you mean target?)"),
        ("type=cache,sharing=none", 'unsupported sharing value "none"'),
        ("uid=1,target=/x", 'uid not allowed for "bind" type mounts'),
        ("type=cache,uid=-1", "invalid value -1 for uid"),
        ("type=cache,mode=8", "invalid value 8 for mode"),
        ("required,target=/x", "unexpected key 'required' for mount type 'bind'"),
        ("type=cache,size=1", "unexpected key 'size' for mount type 'cache'"),
        ("type=secret,from=x", "secret mount should not have a from"),
        ("type=secret", "invalid secret mount. one of source, target required"),
        ("type=secret,source=a,id=b", "both source and id can't be set"),
        ("sharing=shared", "invalid cache sharing set for bind mount"),
        ("ro=maybe", "invalid value for ro: maybe"),
    ],
)
def test_mounts_that_are_refused(text: str, reason: str) -> None:
    with pytest.raises(DockerfileError) as failure:
        parse_mount(text, same)
    assert str(failure.value) == reason


def test_comma_separated_values() -> None:
    assert list(split_csv('a,"b,""c""",,d')) == ["a", 'b,"c"', "", "d"]
    for wrong in ('a"b', '"a', '"a"b'):
        with pytest.raises(DockerfileError, match="failed to parse csv mounts"):
            split_csv(wrong)


def test_what_was_perhaps_meant() -> None:
    assert suggest("RUM", ["RUN", "ENV"], any_case=True) == " (did you mean RUN?)"
    assert suggest("rum", ["RUN", "ENV"], any_case=True) == " (did you mean run?)"
    assert suggest("RUN", ["RUN"]) == ""
    assert suggest("x" * 5000, ["y" * 5000] * 100) == ""


def test_sizes_are_bounded() -> None:
    for source, reason in (
        (b"FROM x\n" + b"# comment\n" * (MAX_FILE // 10 + 1), "larger than"),
        (b"FROM x\nRUN " + b"a" * 70_000, "line greater than max allowed size of 65535"),
        (b"FROM x\nRUN a\0b", "byte 0"),
        (b"FROM x\n" * (MAX_INSTRUCTIONS + 1), "more than 10000 instructions"),
        (b"FROM x\nRUN <<E\n" + b"x\n" * 100_000, "unterminated heredoc"),
    ):
        with pytest.raises(DockerfileError, match=reason):
            read_lines(source)
    joined = parse(b"FROM x\nRUN a" + b" \\\n b" * 20_000).stages[0].statements
    assert joined[0].location == Location(2, 20_002)


@given(
    st.lists(
        st.sampled_from(["FROM x", "RUN", "COPY", "ENV", "<<E", "E", "--mount=", "\\", "#", "[", "'", '"', " ", "\n"])
    )
)
def test_any_file_is_read_or_refused(parts: list[str]) -> None:
    try:
        parse("".join(parts).encode())
    except DockerfileError as error:
        assert str(error)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(source: bytes) -> None:
    try:
        parse(b"FROM x\n" + source)
    except DockerfileError as error:
        assert str(error)
