"""Templates in a task's environment, hostname and mounts."""

import pytest

from bennu.orchestration.tasks.templates import BadTemplate, TemplateContext, expand, expand_env

CONTEXT = TemplateContext(
    service_id="s1",
    service_name="web",
    service_labels={"tier": "front", "a.b": "dotted"},
    node_id="n1",
    node_hostname="host-1",
    node_os="linux",
    node_architecture="x86_64",
    task_id="t1",
    slot=3,
)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain", "plain"),
        ("{{.Task.Slot}}", "3"),
        ("{{ .Task.Name }}", "web.3.t1"),
        ("{{.Service.Name}}-{{.Task.Slot}}.{{.Node.Hostname}}", "web-3.host-1"),
        ("{{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}", "linux/x86_64"),
        ("{{.Service.Labels.tier}}", "front"),
        ('{{index .Service.Labels "a.b"}}', "dotted"),
        ('{{index .Service.Labels "none"}}', ""),
        ('{{join "-" .Service.Name "x" .Task.ID}}', "web-x-t1"),
        ('{{join "," (join "" "a" "b") "c"}}', "ab,c"),
        ('{{.Service.Name | join "/" "a"}}', "a/web"),
        ("a  {{- .Task.Slot -}}  b", "a3b"),
        ("{{`raw`}}", "raw"),
        ('{{if eq .Task.Slot "1"}}first{{else}}other{{end}}', "other"),
        ('{{printf "%s-%s" .Service.Name .Task.Slot}}', "web-3"),
        ("{{range $k, $v := .Service.Labels}}{{$k}}={{$v}} {{end}}", "a.b=dotted tier=front "),
    ],
)
def test_expansion(template: str, text: str) -> None:
    assert expand(template, CONTEXT) == text


def test_without_a_slot_the_node_stands_in() -> None:
    context = TemplateContext(service_name="web", node_id="n1", task_id="t1")
    assert (expand("{{.Task.Slot}}", context), context.task_name) == ("n1", "web.n1.t1")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{.Foo}}", '1:2: executing "expansion" at <.Foo>: can\'t evaluate field Foo in type *template.Context'),
        ("{{.Service.Labels.none}}", 'map has no entry for key "none"'),
        ("{{.Task.Slot.x}}", "can't evaluate field x in type string"),
        ("{{.Task.Slot", "unclosed action"),
        ('{{foo "x"}}', 'function "foo" not defined'),
        ("{{}}", "missing value for command"),
        ("{{.Task.ID .Task.ID}}", "can't give argument to non-function .Task.ID"),
    ],
)
def test_errors_are_go_s(template: str, words: str) -> None:
    with pytest.raises(BadTemplate) as caught:
        expand(template, CONTEXT)
    assert words in str(caught.value)


def test_environment_values_are_expanded_and_names_are_not() -> None:
    assert expand_env(["A={{.Task.Slot}}", "B", "{{.Foo}}=1"], CONTEXT) == ["A=3", "B", "{{.Foo}}=1"]


def test_a_bad_environment_is_refused_in_docker_s_words() -> None:
    with pytest.raises(BadTemplate) as caught:
        expand_env(["A={{.Foo}}"], CONTEXT)
    assert str(caught.value).startswith(
        'expanding env failed: expanding env "A={{.Foo}}": template: expansion:1:2: executing'
    )


def test_parentheses_within_parentheses_come_to_an_end() -> None:
    assert expand("{{" + "(" * 100 + '"a"' + ")" * 100 + "}}", TemplateContext()) == "a"
    with pytest.raises(BadTemplate, match="max expression depth exceeded"):
        expand("{{" + "(" * 3000 + '"a"' + ")" * 3000 + "}}", TemplateContext())


@pytest.mark.timeout(10)
def test_a_template_of_beginnings_is_refused_in_no_time() -> None:
    with pytest.raises(BadTemplate, match="unclosed action"):
        expand("{{" * 1_000_000, TemplateContext())


@pytest.mark.parametrize(
    "value",
    [
        '{{printf "%10000d" 1}}' * 40,
        "".join(f'{{{{$v{number} := printf "%10000d" 1}}}}' for number in range(600)),
        '{{define "a"}}{{template "b"}}{{template "b"}}{{end}}{{define "b"}}'
        + '{{template "c"}}' * 1000
        + '{{end}}{{define "c"}}'
        + "{{$x := 1}}" * 20
        + '{{end}}{{template "a"}}',
    ],
)
def test_all_templates_of_a_task_together_are_bounded(value: str) -> None:
    with pytest.raises(BadTemplate, match=r"more than (1048576 characters|100000 steps)"):
        expand_env([f"A{number}={value}" for number in range(3)], TemplateContext())
