"""Two rules about names.

A public name of the pure core that nothing in `src` reaches is a rule that is tested and not in force: sooner or later
the shell has a second copy of it, and the two drift apart. A class name that stands for two classes misleads readers.
"""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeAlias

ROOT: Final = Path(__file__).parents[1]
SOURCE: Final = ROOT / "src"
PURE: Final = (
    *("bennu.build.changes", "bennu.build.dockerfile", "bennu.build.graph", "bennu.build.plan"),
    *("bennu.lifecycle", "bennu.orchestration", "bennu.go"),
)

# A definition at the top of a module: the module's name, and its own.
Place: TypeAlias = tuple[str, str]


def read_modules() -> dict[str, ast.Module]:
    found = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = ast.parse(path.read_text())
    return found


def is_pure(module: str) -> bool:
    return any(module == pure or module.startswith(f"{pure}.") for pure in PURE)


def names_of(statement: ast.stmt) -> list[str]:
    """What a statement at the top of a module defines."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def imports_of(tree: ast.Module, modules: dict[str, ast.Module]) -> dict[str, Place]:
    """What the names that a module imports, anywhere in it, stand for; a module itself is ("its name", "")."""
    found: dict[str, Place] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found[alias.asname or alias.name] = (inner, "") if inner in modules else (node.module, alias.name)
    return found


def asked_for(node: ast.AST, module: str, imports: dict[str, Place]) -> Iterator[Place]:
    """What the code below `node` asks for by name."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            yield imports.get(inner.id, (module, inner.id))
        elif isinstance(inner, ast.Attribute) and isinstance(inner.value, ast.Name):
            of, name = imports.get(inner.value.id, ("", ""))
            if of and not name:
                yield of, inner.attr
        elif isinstance(inner, ast.Constant) and isinstance(inner.value, str) and inner.value.isidentifier():
            yield imports.get(inner.value, (module, inner.value))  # an annotation in quotes


def find_in_force(modules: dict[str, ast.Module]) -> set[Place]:
    """All that is reached from outside the pure packages."""
    asks: dict[Place, set[Place]] = {}
    waiting: list[Place] = []
    for module, tree in modules.items():
        imports = imports_of(tree, modules)
        for statement in tree.body:
            asked = set(asked_for(statement, module, imports))
            for name in names_of(statement):
                asks.setdefault((module, name), set()).update(asked)
            if not is_pure(module):
                waiting += asked
        asks |= {(module, name): {place} for name, place in imports.items() if (module, name) not in asks}
    found: set[Place] = set()
    while waiting:
        place = waiting.pop()
        if place not in found:
            found.add(place)
            waiting += asks.get(place, ())
    return found


def test_no_rule_of_the_pure_core_is_without_a_caller() -> None:
    modules = read_modules()
    in_force = find_in_force(modules)
    idle = {
        f"{module}.{name}"
        for module, tree in modules.items()
        if is_pure(module)
        for statement in tree.body
        if isinstance(statement, ast.FunctionDef | ast.ClassDef)
        for name in names_of(statement)
        if not name.startswith("_") and (module, name) not in in_force
    }
    assert not idle, "nothing in src asks for these: use them, or delete them"


def test_a_class_name_stands_for_one_class() -> None:
    times = Counter(
        node.name for tree in read_modules().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
    )
    shared = {name: number for name, number in times.items() if number > 1}
    assert not shared, "one name, one class: find the newer one another name"
