"""The layout is the architecture; what import-linter cannot say is checked here. It also runs import-linter itself."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src/bennu"
PURE = ("go", "lifecycle", "orchestration")
# Modules of the standard library that neither look at the world nor change it.
PURE_STDLIB = {
    "__future__", "abc", "bisect", "collections", "dataclasses", "decimal", "enum", "functools", "heapq", "itertools",
    "math", "operator", "re", "string", "textwrap", "types", "typing",
}  # fmt: skip
# `datetime` and `hashlib` can be used purely; what they could leak is named instead.
PURE_WITH_CARE = {"datetime": ("now", "today", "utcnow"), "hashlib": (), "ipaddress": (), "fnmatch": (), "signal": ()}
PURE_SUBMODULES = {"collections.abc", "urllib.parse"}
MAX_LINES = 600


def modules(*below: str) -> Iterator[Path]:
    for folder in below or ("",):
        yield from sorted((PACKAGE / folder).rglob("*.py"))


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
    return names


def top_level_names() -> set[str]:
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    return there - {"__init__"}


def is_pure(module: str) -> bool:
    return module in PURE_STDLIB or module in PURE_SUBMODULES or module in PURE_WITH_CARE


def pure_modules() -> list[Path]:
    return list(modules(*PURE))


def test_the_pure_core_imports_nothing_that_can_do_io() -> None:
    pure = tuple(f"bennu.{package}" for package in ("errors", *PURE))
    for path in pure_modules():
        for module in imported(path):
            allowed = module.startswith(pure) or is_pure(module)
            assert allowed, f"{path.relative_to(ROOT)} imports {module}"


def test_the_pure_core_awaits_nothing_and_asks_no_clock() -> None:
    for path in pure_modules():
        for node in ast.walk(ast.parse(path.read_text())):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            assert not isinstance(node, ast.AsyncFunctionDef | ast.Await), f"{where} is async"
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert node.attr not in PURE_WITH_CARE.get(node.value.id, ()), f"{where} reads the clock"


def test_every_layer_imports_downwards_only() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


def test_the_command_line_is_kept_from_every_package_but_its_own() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    contract = next(one for one in contracts if one.get("source_modules") == ["bennu.cli"])
    kept_from = {name.removeprefix("bennu.") for name in contract["forbidden_modules"]}
    assert kept_from == top_level_names() - {"cli", "go"}  # Go's words for durations and sizes are a leaf for all


def test_every_top_level_name_of_the_package_has_its_place_on_the_map() -> None:
    """docs/architecture.md draws the house; a room that is not on the map, or is drawn and not there, is an error."""
    text = (ROOT / "docs/architecture.md").read_text()
    drawn = set(re.findall(r"^  ([a-z_]+)(?:/|\.py) ", text, re.MULTILINE))
    assert top_level_names() == drawn


def test_no_module_outgrows_a_reader() -> None:
    long = {str(path): lines for path in modules() if (lines := len(path.read_text().splitlines())) > MAX_LINES}
    assert not long


def test_no_files_import_each_other_in_a_ring() -> None:
    """Names that only annotations need (`TYPE_CHECKING`) are no imports: who holds whom may be told both ways."""
    paths = {
        ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__"): path
        for path in modules()
    }
    arrows = {name: {one for one in needed(path, set(paths)) if one != name} for name, path in paths.items()}
    while free := [name for name, to in arrows.items() if not to & arrows.keys()]:
        for name in free:
            del arrows[name]
    assert not arrows, f"these are in a ring, or lead to one: {sorted(arrows)}"


def needed(path: Path, names: set[str]) -> set[str]:
    """The modules of ours that the file cannot be loaded without, or loads inside of a function."""
    tree = ast.parse(path.read_text())
    typing_only = {
        node
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.dump(branch.test)
        for statement in branch.body
        for node in ast.walk(statement)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= members & names or {node.module}
    return found & names


def test_helper_programs_are_started_in_one_place_without_a_shell() -> None:
    for path in modules():
        text = path.read_text()
        assert "shell=True" not in text and "create_subprocess_shell" not in text and "os.system(" not in text, path


def test_the_tests_that_need_python_only_skip_nothing() -> None:
    """What needs root, a program or an image belongs to tests/engine: a claim that is skipped here is held nowhere."""
    for folder in ("unit", "simulation"):
        for path in sorted((ROOT / "tests" / folder).rglob("*.py")):
            found = re.search(r"skip\(|skipif|geteuid|getuid|shutil\.which", path.read_text())
            assert not found, f"{path.relative_to(ROOT)}: {found and found[0]}"


def test_each_test_that_the_source_names_exists() -> None:
    """A docstring may name the test that pins its rule; when that test is renamed, so is the name there."""
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    there = set(re.findall(r"\bdef (test_\w+)", tests))
    named = {name for path in modules() for name in re.findall(r"\b(test_[a-z0-9_]{12,})\b", path.read_text())}
    assert named and named <= there
