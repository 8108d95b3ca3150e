"""Templates in a task's environment, hostname and mounts, `{{.Task.Slot}}` and its like, as in Docker's services.

The templates are Go's. Secrets and configs that are templates themselves can also name what else the task is given.

Fields: .Service.ID .Service.Name .Service.Labels.<key> .Node.ID .Node.Hostname .Node.Platform.OS
.Node.Platform.Architecture .Task.ID .Task.Name .Task.Slot; the last is the node's id where there is no slot.
Functions: Go's own, `join`, and only in a payload `secret`, `config` and `env`. As swarmkit `template/context.go`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from bennu.errors import InvalidParameter
from bennu.go.printing import Struct, Value
from bennu.go.template import Expense, expand_template
from bennu.go.template_functions import Function
from bennu.go.template_syntax import TemplateError


class BadTemplate(InvalidParameter):
    """The error of a template that cannot be read or expanded.

    The message is Go's, without what it was expanded for.
    """


@dataclass(frozen=True, slots=True)
class Payload:
    """The data that templates of secrets and configs can ask for.

    It holds the secrets and configs of the task, by their targets, and its environment.
    """

    secrets: Mapping[str, str] = field(default_factory=dict)
    configs: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)

    def find(self, kind: str, name: str) -> str | None:
        """Find a secret, config or variable. None: there is no such secret or config. An absent variable is empty."""
        if kind == "env":
            return self.env.get(name, "")
        return (self.secrets if kind == "secret" else self.configs).get(name)


@dataclass(frozen=True, slots=True)
class TemplateContext:
    """The names that a template can use. `slot` 0 means that the task has none.

    `expense` is that of all templates of the task: a thousand variables may not take a thousand times what one may.
    """

    service_id: str = ""
    service_name: str = ""
    service_labels: Mapping[str, str] = field(default_factory=dict)
    node_id: str = ""
    node_hostname: str = ""
    node_os: str = ""
    node_architecture: str = ""
    task_id: str = ""
    slot: int = 0
    expense: Expense = field(default_factory=Expense, compare=False, repr=False)

    @property
    def slot_text(self) -> str:
        return str(self.slot) if self.slot else self.node_id

    @property
    def task_name(self) -> str:
        """`web.1.<task id>`, or with the node's id where there is no slot; also the container's name."""
        return f"{self.service_name}.{self.slot_text}.{self.task_id}"

    def tree(self) -> Struct:
        """Write the context as the structs that templates see."""
        platform = Struct("template.Platform", {"Architecture": self.node_architecture, "OS": self.node_os})
        parts: dict[str, Value] = {
            "Service": Struct(
                "struct { ID string; Name string; Labels map[string]string }",
                {"ID": self.service_id, "Name": self.service_name, "Labels": self.service_labels},
            ),
            "Node": Struct(
                "struct { ID string; Hostname string; Platform template.Platform }",
                {"ID": self.node_id, "Hostname": self.node_hostname, "Platform": platform},
            ),
            "Task": Struct(
                "struct { ID string; Name string; Slot string }",
                {"ID": self.task_id, "Name": self.task_name, "Slot": self.slot_text},
            ),
        }
        return Struct("*template.Context", parts)


def expand(template: str, context: TemplateContext, payload: Payload | None = None) -> str:
    """Replace every action of the template by its value. Raises: BadTemplate."""
    if "{{" not in template:
        return template
    functions: dict[str, Function] = {"join": _join}
    if payload is not None:
        functions |= {kind: partial(_ask, payload, kind) for kind in ("secret", "config", "env")}
    try:
        return expand_template(template, context.tree(), functions, expense=context.expense)
    except TemplateError as error:
        raise BadTemplate(str(error)) from error


def _join(arguments: Sequence[Value]) -> str:
    texts = [argument for argument in arguments if isinstance(argument, str)]
    if not texts or len(texts) < len(arguments):
        raise ValueError("error calling join: it takes a separator and strings")
    return texts[0].join(texts[1:])


def _ask(payload: Payload, kind: str, arguments: Sequence[Value]) -> str:
    if len(arguments) != 1 or not isinstance(arguments[0], str):
        raise ValueError(f"wrong number of args for {kind}: want 1 got {len(arguments)}")
    found = payload.find(kind, arguments[0])
    if found is None:
        raise ValueError(f"error calling {kind}: {kind} target {arguments[0]} not found")
    return found


def expand_env(env: Sequence[str], context: TemplateContext) -> list[str]:
    """Expand the values (not the names) of `K=V` entries. Raises BadTemplate in Docker's words."""
    expanded = []
    for entry in env:
        name, sign, value = entry.partition("=")
        try:
            expanded.append(f"{name}{sign}{expand(value, context)}")
        except BadTemplate as error:
            quoted = entry.replace("\\", "\\\\").replace('"', '\\"')
            raise BadTemplate(f'expanding env failed: expanding env "{quoted}": {error}') from error
    return expanded
