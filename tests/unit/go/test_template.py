"""Go's templates, against what Go's text/template gives; what a task's can name is tested with the orchestration."""

from collections.abc import Sequence

import pytest

from bennu.go.printing import Struct, Value
from bennu.go.template import expand_template
from bennu.go.template_functions import Function
from bennu.go.template_syntax import TemplateError


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
        ("a {{- /* a comment */ -}} b", "ab"),
        ('{{if eq .Place.Row "3"}}third{{else if eq .Place.Row "4"}}fourth{{else}}other{{end}}', "third"),
        ('{{if ne .Place.Row "3"}}a{{else if and (eq .Name "web") (not .Labels.a)}}b{{else}}c{{end}}', "c"),
        ('{{and 1 "" 3}}|{{or "" 0 "x"}}|{{not ""}}', "|x|true"),
        ('{{lt "a" "b"}} {{le 1.5 1.5}} {{gt 1 2}} {{ge 2 1}} {{eq "a" "b" "a"}}', "true true false true true"),
        ("{{with .Place}}{{.Row}}{{$.Name}}{{end}}{{with .Labels.b}}{{.}}{{end}}", "3web2"),
        ("{{with ``}}{{else}}nothing{{end}}{{with 0}}a{{else with 2}}{{.}}{{end}}", "nothing2"),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}", "a=1;b=2;"),
        ("{{range 3 -}} {{.}} {{- end}}{{range 0}}{{else}}none{{end}}", "012none"),
        ("{{range $i := 5}}{{if eq $i 1}}{{continue}}{{end}}{{if eq $i 3}}{{break}}{{end}}{{$i}}{{end}}", "02"),
        ("{{$x := 1}}{{range 3}}{{$x = .}}{{end}}{{$x}}", "2"),
        ('{{define "t"}}[{{.}}]{{end}}{{template "t" .Name}}{{block "b" 5}}<{{.}}>{{end}}', "[web]<5>"),
        ('{{printf "%s-%s" .Name .Place.Row}}', "web-3"),
        (
            '{{printf "%05d|%-5s|%q|%x|%v|%5s|%.1s" 42 "ab" "a\\"b" "hi" true "x" "yz"}}',
            '00042|ab   |"a\\"b"|6869|true|    x|y',
        ),
        ('{{printf "%6.2f|%-6d|%+d|%x|%X|%o|%b" 3.14159 7 5 255 255 8 5}}', "  3.14|7     |+5|ff|FF|10|101"),
        (
            '{{printf "%d" "a"}} {{printf "%d %d" 1}} {{printf "%d" 1 2}} {{printf "%s" 1}}',
            "%!d(string=a) 1 %!d(MISSING) 1%!(EXTRA int=2) %!s(int=1)",
        ),
        ('{{printf "%v %v %T %t %c %U" 1.0 100000000.0 1.5 true 65 66}}', "1 1e+08 float64 true A U+0042"),
        ('{{print 1 2 "a" 3 true}}|{{print "a" "b" 1 2}}|{{println "a" 1}}', "1 2a3 true|ab1 2|a 1\n"),
        (
            '{{html "<a>&"}} {{js "a\\"b<c="}} {{urlquery "a b&c/d~e"}}',
            '&lt;a&gt;&amp; a\\"b\\u003Cc\\u003D a+b%26c%2Fd~e',
        ),
        ('{{slice "abcdef" 1 3}}{{slice "abc" 1}} {{index "abc" 1}} {{len "h\u00e9"}} {{len .Labels}}', "bcbc 98 3 2"),
        ("{{'a'}} {{1.50}} {{1e3}} {{0x10}} {{1e21}}", "97 1.5 1000 16 1e+21"),
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
        ('{{printf "x" | whisper}}', 'template: expansion:1: function "whisper" not defined'),
        ("a\n{{.Nme}}", 'expansion:2:2: executing "expansion" at <.Nme>'),
        ("{{if .Name}}", "unexpected EOF"),
        ("{{if}}x{{end}}", "missing value for if"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{else}}", "unexpected {{else}}"),
        ("{{$y}}", 'undefined variable "$y"'),
        ("{{if 1}}{{$x := 1}}{{end}}{{$x}}", 'undefined variable "$x"'),
        ("{{break}}", "{{break}} outside {{range}}"),
        ('{{template "zz"}}', '1:11: executing "expansion" at <{{template "zz"}}>: template "zz" not defined'),
        ('{{eq 1 "1"}}', 'at <eq 1 "1">: error calling eq: incompatible types for comparison'),
        ("{{lt true false}}", "error calling lt: invalid type for comparison"),
        ("{{eq 1}}", "error calling eq: missing argument for comparison"),
        ("{{lt 1}}", "at <lt>: wrong number of args for lt: want 2 got 1"),
        ("{{and}}", "wrong number of args for and: want at least 1 got 0"),
        ("{{len 3}}", "error calling len: len of type int"),
        ('{{slice "abc" 2 1}}', "error calling slice: invalid slice index: 2 > 1"),
        ('{{index "abc" 5}}', "error calling index: index out of range: 5"),
        ("{{call .Name}}", 'error calling call: non-function "web" of type string'),
        ("{{.Name 1}}", "can't give argument to non-function .Name"),
        ("{{nil}}", "nil is not a command"),
        ("{{1 | 2}}", "non executable command in pipeline stage 2"),
        ("{{range $k, $v := `ab`}}{{end}}", "range can't iterate over ab"),
        ("{{range $i, $e := 3}}{{end}}", "can't use 3 to iterate over more than one variable"),
        ('{{"a}}', "unterminated quoted string"),
        ("{{!}}", 'unexpected "!" in command'),
        ("{{range 1000}}{{range 1000}}{{end}}{{end}}", "steps"),
        ("{{$x := `abc`}}{{range 99}}{{$x = print $x $x}}{{end}}", "characters"),
        ('{{range 2000}}{{printf "%9999d" 1}}{{end}}', "characters"),
        ('{{define "x"}}{{template "x"}}{{end}}{{template "x"}}', "exceeded maximum template depth"),
        ("{{if 1}}" * 101 + "{{end}}" * 101, "max expression depth exceeded"),
        ("{{.Name", "unclosed action"),
        ("{{(.Name}}", "unclosed left paren"),
    ],
)
def test_what_cannot_be_expanded_is_refused_in_gos_words(template: str, words: str) -> None:
    with pytest.raises(TemplateError) as caught:
        expand_template(template, ROOT, FUNCTIONS)
    assert words in str(caught.value)
