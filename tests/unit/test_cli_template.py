"""The part of Go's template language that `--format` understands."""

import pytest

from bennu.cli.failure import Failure
from bennu.cli.template import Template

CONTAINER = {
    "Name": "/web",
    "State": {"ExitCode": 137, "Running": False, "Error": "", "Health": None},
    "Config": {"Cmd": ["sleep", "9"], "Env": ["A=1", "B=2"], "Labels": {"b": "2", "a": "1"}, "Entrypoint": None},
    "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "99/tcp": None},
    "Ratio": 0.5,
}

RENDERED = [
    ("plain text", "plain text"),
    ("{{.Name}}", "/web"),
    ("{{.State.ExitCode}} {{.State.Running}}", "137 false"),
    ("{{ .Name }}-{{- .State.ExitCode -}} x", "/web-137x"),
    ("{{/* nothing */}}x", "x"),
    ("{{json .State}}", '{"ExitCode":137,"Running":false,"Error":"","Health":null}'),
    ("{{json .Config.Cmd}}", '["sleep","9"]'),
    ("{{.Config.Cmd}}", "[sleep 9]"),
    ("{{.Config.Labels}}", "map[a:1 b:2]"),
    ("{{.Config.Entrypoint}} {{json .Config.Entrypoint}}", "[] null"),
    ("{{.State.Health}} {{.Config.ExposedPorts}}", "<nil> map[]"),
    ("{{index .Config.Cmd 0}}", "sleep"),
    ('{{index .Config.Labels "a"}}', "1"),
    ('{{(index (index .Ports "80/tcp") 0).HostPort}}', "8080"),
    ("{{len .Config.Env}}", "2"),
    ("{{range .Config.Env}}[{{.}}]{{end}}", "[A=1][B=2]"),
    ("{{range $i, $v := .Config.Env}}{{$i}}={{$v}} {{end}}", "0=A=1 1=B=2 "),
    ("{{range $k, $v := .Config.Labels}}{{$k}}{{$v}}{{end}}", "a1b2"),
    ("{{range .Config.Entrypoint}}x{{else}}none{{end}}", "none"),
    ("{{range $p, $c := .Ports}}{{$p}}{{if $c}}->{{(index $c 0).HostPort}}{{end}};{{end}}", "80/tcp->8080;99/tcp;"),
    ("{{if .State.Running}}up{{else if eq .State.ExitCode 137}}killed{{else}}down{{end}}", "killed"),
    ("{{if .State.Running}}up{{else if eq .State.ExitCode 1}}one{{else}}down{{end}}!", "down!"),
    ("{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}", "none"),
    ("{{if .State.Missing}}x{{end}}ok", "ok"),
    ("{{with .State}}{{.ExitCode}}{{end}}", "137"),
    ("{{with .State.Error}}{{.}}{{else}}no error{{end}}", "no error"),
    ("{{with $x := .Name}}{{$x}}{{end}}", "/web"),
    ("{{$code := .State.ExitCode}}{{$code}}", "137"),
    ("{{range .Config.Env}}{{$.Name}} {{end}}", "/web /web "),
    ('{{.Name | printf "%q"}}', '"/web"'),
    ('{{printf "%-8s|%05d" .Name .State.ExitCode}}', "/web    |00137"),
    ('{{join .Config.Cmd ","}}', "sleep,9"),
    ("{{upper .Name}} {{title .Name}}", "/WEB /Web"),
    ("{{slice .Name 1 3}}", "we"),
    ("{{if and .Name (not .State.Running)}}both{{end}}", "both"),
    ("{{or .State.Error .Name}}", "/web"),
    ("{{if gt .State.ExitCode 128}}signal{{end}}", "signal"),
    ('{{"a\\tb"}}{{`raw`}}', "a\tbraw"),
    ("{{.Ratio}}", "0.5"),
    ("{{println .Name 1}}", "/web 1\n"),
    ('{{range split "a,b" ","}}<{{.}}>{{end}}', "<a><b>"),
    ("{{truncate .Name 2}}", "/w"),
]


@pytest.mark.parametrize(("source", "expected"), RENDERED, ids=[source for source, _ in RENDERED])
def test_a_template_renders(source: str, expected: str) -> None:
    assert Template(source).render(CONTAINER) == expected


REFUSED = [
    ("{{.Missing}}", 'map has no entry for key "Missing"'),
    ("{{.State.Health.Status}}", "nil pointer evaluating interface {}.Status"),
    ("{{.Missing.Deeper}}", 'map has no entry for key "Missing"'),
    ("{{.Name.Deeper}}", "can't evaluate field Deeper"),
    ("{{.Name", "unclosed action"),
    ("{{}}", "missing value for command"),
    ("{{if .Name}}x", "unexpected EOF"),
    ("{{end}}", "unexpected {{end}}"),
    ("{{else}}", "unexpected {{else}}"),
    ("{{nosuch .Name}}", 'function "nosuch" not defined'),
    ("{{index .Config.Cmd 9}}", "index out of range"),
    ("{{$x}}", 'undefined variable "$x"'),
    ("{{(.Name}}", "unclosed left paren"),
    ("{{.Name |}}", "missing value for command"),
    ("{{len .State.ExitCode}}", "error calling len"),
    ("{{range .Name}}{{end}}", "range can't iterate over"),
]


@pytest.mark.parametrize(("source", "complaint"), REFUSED, ids=[source for source, _ in REFUSED])
def test_a_template_that_does_not_fit_says_why(source: str, complaint: str) -> None:
    with pytest.raises(Failure, match="template parsing error") as caught:
        Template(source).render(CONTAINER)
    assert complaint in str(caught.value)
