"""Variables in words: what BuildKit answers, and that no word takes long."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bennu.build.dockerfile.expansion import Style, expand, split
from bennu.build.dockerfile.failure import DockerfileError
from bennu.build.dockerfile.patterns import match_end, parse_pattern, replace

ENV = {"A": "hello.tar.gz", "E": "", "P": "/a/b/c", "X": "aXbXc", "N": "one\ntwo", "U_1": "u"}


@pytest.mark.parametrize(
    ("word", "expanded"),
    [
        ("$A", "hello.tar.gz"),
        ("${A}x", "hello.tar.gzx"),
        ("$U_1-", "u-"),
        ("$1x", "x"),
        ("$", "$"),
        ("a$ b", "a$ b"),
        ("\\$A", "$A"),
        ("'$A'", "$A"),
        ('"$A \\"q\\" \\x"', 'hello.tar.gz "q" \\x'),
        ("a\\ b\\\\", "a b\\"),
        ("x\\", "x"),
        ("${E:-d}", "d"),
        ("${E-d}", ""),
        ("${U:-${A}}", "hello.tar.gz"),
        ("${U:-'a $A'}", "a $A"),
        ("${U+x}${A+x}", "x"),
        ("${E:+x}${A:+y}", "y"),
        ("${A:?gone}", "hello.tar.gz"),
        ("${A#*.}", "tar.gz"),
        ("${A##*.}", "gz"),
        ("${A%.*}", "hello.tar"),
        ("${A%%.*}", "hello"),
        ("${A#?ell}", "o.tar.gz"),
        ("${A%gz}", "hello.tar."),
        ("${A%nope}", "hello.tar.gz"),
        ("${N#one*}", "\ntwo"),
        ("${P/\\//-}", "-a/b/c"),
        ("${P//\\//-}", "-a-b-c"),
        ("${X//X/}", "abc"),
        ("${X/X*X/-}", "a-c"),
        ("${X//?/.}", "....."),
        ("${E//x/y}", ""),
        ("${X//\\*/y}", "aXbXc"),
        ("<<EOF", "<<EOF"),
    ],
)
def test_words(word: str, expanded: str) -> None:
    assert expand(word, ENV).text == expanded


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("${A", "unsupported modifier (\ufffd) in substitution"),
        ("${", "syntax error: missing '}'"),
        ("${}", "syntax error: bad substitution"),
        ("${A:-x", "syntax error: missing '}'"),
        ("${A/x", "syntax error: missing '/' in ${}"),
        ("${A/x/y", "syntax error: missing '}'"),
        ("${A^}", "unsupported modifier (^) in substitution"),
        ("${A:#x}", "unsupported modifier (:#) in substitution"),
        ("${A:0:1}", "unsupported modifier (:0) in substitution"),
        ("${U?}", "U: is not allowed to be unset"),
        ("${E:?}", "E: is not allowed to be empty"),
        ("${U:?say $A}", "U: say hello.tar.gz"),
        ("'x", "unexpected end of statement while looking for matching single-quote"),
        ('"x', "unexpected end of statement while looking for matching double-quote"),
        ("${A#\\x}", "invalid pattern (\\x) in substitution: invalid escape '\\x'"),
    ],
)
def test_what_is_no_word_is_told_with_the_word(word: str, reason: str) -> None:
    with pytest.raises(DockerfileError) as failure:
        expand(word, ENV)
    assert str(failure.value).startswith("failed to process ")
    assert str(failure.value).endswith(f": {reason}")


def test_styles() -> None:
    assert expand("'$A' \"$U\"", ENV, Style(raw_quotes=True, keep_unset=True)).text == "'$A' \"$U\""
    assert expand("'$A' \\$A", ENV, Style(no_quotes=True)).text == "'hello.tar.gz' $A"
    assert expand("C:\\x`$A", ENV, Style(escape="`")).text == "C:\\x$A"
    assert expand("${U:-x} ${U}", {}, Style(keep_unset=True)).text == "${U:-x} ${U}"
    assert split("$A 'a b' \"\" c\\ d", Style(), ENV) == ["hello.tar.gz", "a b", "c d"]


def test_what_was_there_and_what_was_not() -> None:
    found = expand("$A${U:-$E}", ENV)
    assert (found.used, found.missing) == (("A", "E"), ("U",))


def test_sizes_and_depths_are_bounded() -> None:
    with pytest.raises(DockerfileError, match="nested too deeply"):
        expand("${U:-" * 70 + "}" * 70, {})
    with pytest.raises(DockerfileError, match="longer than"):
        expand("$B" * 100, {"B": "x" * 20_000})
    with pytest.raises(DockerfileError, match="too long"):
        expand("${B#" + "*a" * 10_000 + "}", {"B": "a" * 20_000})


def test_a_pattern_that_regular_expressions_choke_on_takes_one_pass() -> None:
    assert expand("${B%%" + "*a" * 60 + "b}", {"B": "a" * 20_000}).text == "a" * 20_000


SIMPLE = st.text(alphabet="ab*?", max_size=6)
VALUES = st.text(alphabet="ab\n", max_size=12)


def regular(pattern: str) -> str:
    return pattern.replace("*", ".*").replace("?", ".")


@given(SIMPLE, VALUES)
def test_a_prefix_is_what_a_regular_expression_finds(pattern: str, value: str) -> None:
    ends = [end for end in range(len(value) + 1) if re.fullmatch(regular(pattern), value[:end])]
    for longest in (False, True):
        end = match_end(parse_pattern(pattern), value, longest=longest)
        assert end == (ends[-1 if longest else 0] if ends else None)


@given(SIMPLE.filter(lambda pattern: pattern.strip("*")), VALUES)
def test_a_replacement_is_what_a_regular_expression_makes(pattern: str, value: str) -> None:
    for every in (False, True):
        wanted = re.sub(regular(pattern), "-", value, count=0 if every else 1)
        assert replace(parse_pattern(pattern), value, "-", every=every) == wanted


@given(st.text(alphabet="$ab{}:-+?#%/\\'\"<> ", max_size=40))
def test_any_word_expands_or_is_refused(word: str) -> None:
    try:
        expand(word, {"a": "b$a", "b": "}"})
    except DockerfileError as error:
        assert str(error).startswith("failed to process ")
