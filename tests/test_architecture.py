"""The layout is the architecture; what import-linter cannot say is checked here. It also runs import-linter itself."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
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
    arrows = dict(read_uses())
    while free := [name for name, to in arrows.items() if not to & arrows.keys()]:
        for name in free:
            del arrows[name]
    assert not arrows, f"these are in a ring, or lead to one: {sorted(arrows)}"


def needed(path: Path, names: set[str]) -> set[str]:
    """The modules of ours that the file imports, also inside of a function or for annotations alone."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= members & names or {node.module}
    return found & names


# --- inside of a package: docs/architecture.md declares the order, from users to what they use ------------------------


def read_orders() -> dict[str, list[list[str]]]:
    """Each package's steps."""
    text = (ROOT / "docs/architecture.md").read_text()
    block = text.split("### Inside of a package", 1)[1].split("```")[1].replace("\n ", " ")
    lines = [line.split(maxsplit=1) for line in block.strip().splitlines()]
    return {package: [step.split() for step in steps.split("→")] for package, steps in lines}


@cache
def read_uses() -> dict[str, set[str]]:
    """What each file of ours imports of ours, also for annotations; `engine/logs` is that folder's face."""
    paths = {path.relative_to(PACKAGE).with_suffix("").as_posix().removesuffix("/__init__"): path for path in modules()}
    dotted = {"bennu." + name.replace("/", "."): name for name in paths}
    return {name: {dotted[one] for one in needed(path, set(dotted))} - {name} for name, path in paths.items()}


def read_arrows() -> dict[str, dict[str, set[str]]]:
    """Of each package: what of it each of its names imports; a name is a file, or a folder with all that is in it."""
    arrows: dict[str, dict[str, set[str]]] = {}
    for name, used in read_uses().items():
        for package in (one.as_posix() for one in Path(name).parents if one.parts):
            inner = name.removeprefix(f"{package}/").split("/")[0]
            of_package = arrows.setdefault(package, {}).setdefault(inner, set())
            below = {one.removeprefix(f"{package}/").split("/")[0] for one in used if one.startswith(f"{package}/")}
            of_package |= below - {inner} | ({"__init__"} if package in used and inner != "__main__" else set())
    return arrows


def propose_place(name: str, arrows: dict[str, set[str]], steps: list[list[str]]) -> str:
    at = {one: number for number, step in enumerate(steps) for one in step}
    first = max((at[user] + 1 for user, used in arrows.items() if name in used and user in at), default=0)
    last = min((at[one] - 1 for one in arrows[name] if one in at), default=len(steps) - 1)
    if first <= last:
        return f"{name}: at one of the steps of " + " | ".join(" ".join(step) for step in steps[first : last + 1])
    above = " ".join(steps[first - 1]) if first else "nothing"
    return f"{name}: a step of its own, below {above}, and above {sorted(arrows[name] & at.keys())}"


def test_each_file_has_its_place_in_the_order_of_its_package() -> None:
    orders, arrows = read_orders(), read_arrows()
    assert orders.keys() == arrows.keys()
    for package, steps in orders.items():
        placed = [name for step in steps for name in step]
        assert len(placed) == len(set(placed)), f"{package}: a name is there twice"
        missing = arrows[package].keys() - set(placed)
        words = [propose_place(name, arrows[package], steps) for name in sorted(missing)]
        assert not words, f"docs/architecture.md has no place for these of {package}/: {words}"
        assert set(placed) <= arrows[package].keys(), f"{package}: {set(placed) - arrows[package].keys()} are gone"


def test_no_arrow_points_upward_inside_of_a_package() -> None:
    arrows = read_arrows()
    for package, steps in read_orders().items():
        below: set[str] = set()
        for step in reversed(steps):
            for name in step:
                upward = arrows[package].get(name, set()) - below
                assert not upward, f"{package}/{name} imports {sorted(upward)}, which the order does not put below it"
            below |= set(step)


# --- files and folders ------------------------------------------------------------------------------------------------

SMALL_LINES = 60
# Files of fewer lines that only one other imports: it would hold them, were it not for this.
STAND_ALONE = {
    "api/http/peer": "asks the kernel and /proc; its user asks the engine",
    "api/routes/export": "one file a resource",
    "api/routes/grpc": "one file a resource",
    "api/routes/not_implemented": "one file a resource",
    "api/routes/plugins": "one file a resource",
    "build/export_image": "packs layers under locks of its own; its user is the sequence of a build",
    "build/dockerfile/flags": "a table, and how it is read",
    "build/plan/ports": "a grammar of its own",
    "build/steps/log_limit": "a pure rule; its user is the shell of a step",
    "build/snapshots": "where layers of builds lie; the solver is to come",
    "cli/contexts": "its user is loaded by every command line, and must not load the client",
    "cli/main": "an entry point",
    "engine/build_front": "loads what it makes only when it is needed",
    "cluster/deadline_queue": "a structure of its own, pure; the manager is a shell",
    "cluster/images": "the part of a task that waits for a registry",
    "cluster/reading": "a pure rule about rows; the state is a shell",
    "cluster/troubles": "a pure rule; the manager is a shell",
    "cluster/upgrades": "grows and shrinks with the versions it reads",
    "daemon/repair": "an entry point, loaded for it alone",
    "engine/top": "the API's user is above the engine, and asks no host program",
    "engine/unsupported": "shrinks with what is missing",
    "images/salvage": "loaded by a repair alone",
    "lifecycle/stop": "a rule of Docker's about signals, tested over its whole domain",
    "network/announcer": "owns sockets and timers; its user plans",
    "network/cluster_hooks": "a Protocol that another package implements",
    "network/lb/service_ports": "owns sockets; its user decides",
    "orchestration/model/counts": "a rule of swarmkit's; its user makes JSON",
    "runtime/propagation": "asks the kernel about a path; its user is the sequence of a launch",
    "runtime/seccomp_cache": "files; its user is the sequence of a start",
    "runtime/shm": "mounts; its neighbour of that name is pure",
    "simulate/container_run": "the counterpart of `run` for containers",
    "store/ballast": "files; knows nothing of the database",
    "store/salvage": "loaded by a repair alone",
    "volumes/copyup": "a rule of volumes; its user is a creation",
    "volumes/subpath": "a rule of volumes; its user knows images, too",
}


def test_a_small_file_with_one_user_is_part_of_it_or_says_why_not() -> None:
    users: dict[str, set[str]] = {name: set() for name in read_uses()}
    for name, used in read_uses().items():
        for one in used:
            users[one].add(name)
    small = {name for name, its in users.items() if len(its) == 1 and 0 < count_lines(name) < SMALL_LINES}
    assert small <= STAND_ALONE.keys(), {name: users[name] for name in small - STAND_ALONE.keys()}
    assert STAND_ALONE.keys() <= users.keys()


def count_lines(name: str) -> int:
    """Of a file; a folder has none."""
    path = PACKAGE / f"{name}.py"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_the_folders_of_unit_tests_are_those_of_the_source() -> None:
    folders = {path.parent.relative_to(ROOT / "tests/unit") for path in (ROOT / "tests/unit").rglob("test_*.py")}
    assert [folder for folder in sorted(folders) if not (PACKAGE / folder / "__init__.py").exists()] == []


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
