"""The house in order: modules import downwards, each says what it is, none is too long."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = {path.stem: path for path in (ROOT / "featlib").glob("*.py") if path.stem != "__init__"}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "featlib":
            found |= {*node.module.split("."), *(alias.name for alias in node.names)}
    return found & set(MODULES)


def test_no_import_goes_in_a_circle():
    graph = {name: imports(path) for name, path in MODULES.items()}
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert set(order) == set(MODULES)
    assert graph["charts"], "the test sees no imports at all"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_each_module_says_what_it_is_and_is_one_idea(name):
    text = MODULES[name].read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= 380


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, featlib; print([m for m in ('torch', 'pandas', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_nothing_of_the_project_is_unpickled_or_takes_remote_code():
    for path in [*MODULES.values(), *(ROOT / "notebooks").glob("*.py")]:
        text = path.read_text(encoding="utf-8")
        for danger in ("pickle.load", "allow_pickle=True", "yaml.load(", "trust_remote_code=True"):
            assert danger not in text, f"{path.name}: {danger}"
