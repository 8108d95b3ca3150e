"""What the documents name is there, and what is to be told of a change can be told."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "changes").glob("*.md")])
# `docs/engine.md`, `engine/launch.py::launch`, `unit/store/test_store.py`: below the root, the source, or the tests.
NAMED = re.compile(r"`([\w.-]+/[\w./-]*?)(?:::(\w+)[^`]*)?`")
LINKED = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")  # to files, not to another host
BARE = re.compile(r"`([\w-]+\.py)\b")
PLACES = (ROOT, ROOT / "src/bennu", ROOT / "src", ROOT / "tests")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_a_document_names_is_there(document: Path) -> None:
    for name, symbol in NAMED.findall(document.read_text()):
        if not (name.endswith((".py", ".md")) or name.startswith(("src/", "tests/", "docs/", "bench/", "examples/"))):
            continue
        found = next((place / name for place in PLACES if (place / name).exists()), None)
        assert found is not None, f"{name} is not there"
        if symbol:
            defined = {getattr(node, "name", "") for node in ast.walk(ast.parse(found.read_text()))}
            assert symbol in defined, f"{name} has no {symbol}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_bare_names_of_modules_lead_somewhere(document: Path) -> None:
    text = document.read_text()
    assert [name for name in LINKED.findall(text) if not (document.parent / name).exists()] == []
    modules = {path.name for place in ("src", "tests", "bench", "examples") for path in (ROOT / place).rglob("*.py")}
    assert [name for name in BARE.findall(text) if name not in modules] == []


def test_every_fragment_of_a_change_has_a_name_that_gathers_it() -> None:
    towncrier = Path(sys.executable).with_name("towncrier")
    done = subprocess.run([towncrier, "build", "--draft"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
