"""A template names what it may, and there is no way from there to anything else: no object, no memory, no secret."""

import os

import pytest

from bennu.orchestration.tasks.templates import BadTemplate, Payload, TemplateContext, expand


def context() -> TemplateContext:
    return TemplateContext(
        service_id="s1",
        service_name="web",
        service_labels={"tier": "front", "loop": "{{.Service.Labels.loop}}", "call": '{{env "HOME"}}'},
        node_id="n1",
        node_hostname="host-1",
        task_id="t1",
        slot=3,
    )


@pytest.mark.parametrize(
    "template",
    [
        '{{range 1000000000}}{{printf "%1000000000d" 1}}{{end}}',
        "{{range 1000000000}}{{end}}",
        '{{define "x"}}{{template "x"}}{{end}}{{template "x"}}',
        "{{call .Service.Name}}",
        '{{printf "%s" .Service.Name.__class__}}',
        "{{with $x := .Service}}{{$x.__class__}}{{end}}",
        "{{.__class__}}",
        "{{.Service.__class__.__mro__}}",
        "{{.Service.Labels.__class__}}",
        "{{.Service.Labels.keys}}",
        "{{.Service.Name.upper}}",
        "{{.Service.Name.__len__}}",
        "{{.service_name}}",
        "{{index .Service.Labels.tier 5}}",
        '{{env "HOME"}}',
        '{{secret "password"}}',
        '{{config "settings"}}',
    ],
)
def test_what_is_not_offered_is_refused(template: str) -> None:
    with pytest.raises(BadTemplate):
        expand(template, context())


def test_the_whole_is_the_fields_alone_and_a_width_is_bounded() -> None:
    assert expand("{{.}}", context()) == expand("{{$}}", context())
    assert expand("{{.Task}}", context()) == "{t1 web.3.t1 3}"
    assert len(expand('{{printf "%1000000000d" 1}}', context())) == 10_000


def test_what_a_template_gives_is_text_and_not_a_template_again() -> None:
    assert expand("{{.Service.Labels.loop}}{{.Service.Labels.call}}", context()) == (
        '{{.Service.Labels.loop}}{{env "HOME"}}'
    )
    assert expand('{{index .Service.Labels "__class__"}}', context()) == ""


def test_a_secrets_own_template_sees_its_task_and_not_the_host() -> None:
    payload = Payload(secrets={"mine": "s"}, configs={"mine": "c"}, env={"A": "{{.Task.ID}}"})
    assert expand('{{secret "mine"}}{{config "mine"}}{{env "A"}}', context(), payload) == "sc{{.Task.ID}}"
    assert os.environ["PATH"] not in expand('{{env "PATH"}}', context(), payload)
    for other in ('{{secret "other"}}', '{{config "/etc/passwd"}}', '{{secret "../mine"}}'):
        with pytest.raises(BadTemplate):
            expand(other, context(), payload)
