"""Go's templates, as far as they are read here; what a task's templates can name is tested with the orchestration."""

from collections.abc import Sequence

import pytest

from bennu.go.template import Function, Struct, TemplateError, Value, expand_template


def shout(arguments: Sequence[Value]) -> str:
    if len(arguments) != 1 or not isinstance(arguments[0], str):
        raise ValueError("error calling shout: it takes one string")
    return arguments[0].upper()


FUNCTIONS: dict[str, Function] = {"shout": shout}
PLACE = Struct("Place", {"Row": "3", "Seat": "c"})
ROOT = Struct("*T", {"Name": "web", "Labels": {"b": "2", "a": "1"}, "Place": PLACE})


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("", ""),
        ("{{.Name}}", "web"),
        ("{{.Place.Row}}{{.Place.Seat}}", "3c"),
        ("{{.Labels.a}}", "1"),
        ('{{index .Labels "b"}}', "2"),
        ("{{.Labels}}", "map[a:1 b:2]"),
        ("{{.Place}}", "{3 c}"),
        ("{{.Name | shout}}", "WEB"),
        ("{{shout (shout `x`)}}", "X"),
        ("a {{- .Name -}} b", "awebb"),
    ],
)
def test_actions_are_replaced_by_what_go_prints(template: str, text: str) -> None:
    assert expand_template(template, ROOT, FUNCTIONS) == text


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{.Nme}}", "can't evaluate field Nme in type *T"),
        ("{{.Place.Door}}", "can't evaluate field Door in type Place"),
        ("{{.Labels.c}}", 'map has no entry for key "c"'),
        ("{{.Name.x}}", "can't evaluate field x in type string"),
        ("{{shout}}", "error calling shout: it takes one string"),
        ("{{whisper}}", 'function "whisper" not defined'),
        ("{{if .Name}}", 'function "if" not defined'),
        ("{{.Name", "unclosed action"),
        ("{{(.Name}}", "unclosed left paren"),
    ],
)
def test_what_cannot_be_expanded_is_refused_in_gos_words(template: str, words: str) -> None:
    with pytest.raises(TemplateError) as caught:
        expand_template(template, ROOT, FUNCTIONS)
    assert words in str(caught.value)
