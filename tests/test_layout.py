"""The house in order: rooms import one way, a name has one address, nothing grows unseen."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "featlib"
GROUND = ("", "family", "params", "estimate", "run", "chapter", "verdicts")
# What each room may import, beside itself and the ground.
MAY_IMPORT = {
    "text": (),
    "models": ("text",),
    "dictionaries": ("text", "models"),
    "matching": ("text", "models", "dictionaries"),
    "cases": ("text", "models", "dictionaries", "matching"),
    "controls": ("text", "models", "dictionaries", "matching", "cases"),
    "describe": ("text", "models", "dictionaries", "matching"),
    "show": (),
}
# What each may have at most. These numbers only ever go down: the aim is 10,000, 8,000 and 560.
LINES = {"featlib": 10_500, "tests": 9_060, "book/_ext": 560}
LONGEST = 320
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(LIBRARY.rglob("*.py"))
}


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(module: ast.Module) -> set[tuple[str, str]]:
    """(module, name) of all that is imported from featlib, inside functions too."""
    return {
        (node.module or "", alias.name)
        for node in ast.walk(module)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "featlib"
        for alias in node.names
    }


def defined(module: ast.Module) -> set[str]:
    """Names that a module makes itself, at its top level."""
    names: set[str] = set()
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names |= {n.id for t in targets if t for n in ast.walk(t) if isinstance(n, ast.Name)}
    return names


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_from_the_rooms_before_it_and_from_the_ground_alone(room):
    assert {path.parent.name for path in LIBRARY.glob("[a-z]*/*.py")} == set(MAY_IMPORT)
    seen = set()
    for path in (LIBRARY / room).glob("*.py"):
        for module, name in imports(tree(path)):
            first = f"{module}.{name}".split(".")[1]
            seen.add(first if first in (*MAY_IMPORT, *GROUND) else "")
    assert seen, "the test sees no imports at all"
    assert seen <= {room, *MAY_IMPORT[room], *GROUND}


def test_the_ground_imports_no_room_before_it_is_used():
    for name in GROUND[1:]:
        top = ast.Module(tree(LIBRARY / f"{name}.py").body, [])
        top.body = [node for node in top.body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert {f"{m}.{n}".split(".")[1] for m, n in imports(top)} <= {*GROUND, "FeatlibError"}


def test_a_name_has_one_address():
    """Nothing is imported, or reached, through a module that does not define it."""
    makes = {name: defined(tree(path)) for name, path in MODULES.items()}
    users = [
        *MODULES.values(), *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py"),
        *(ROOT / "notebooks").glob("*.py"), *(ROOT / "book/_ext").glob("*.py"),
    ]  # fmt: skip
    for path in users:
        module = tree(path)
        alias = {}
        for node in ast.walk(module):
            if isinstance(node, ast.ImportFrom) and node.module in makes:
                for name in node.names:
                    inner = f"{node.module}.{name.name}"
                    alias[name.asname or name.name] = inner
                    known = name.name in makes[node.module] or inner in makes
                    assert known, f"{path}: {node.module} does not define {name.name}"
        if path in MODULES.values() or path.parent.name == "notebooks":
            for node in ast.walk(module):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                    names = makes.get(alias.get(node.value.id, ""))
                    assert names is None or node.attr in names, f"{path}: {ast.unparse(node)}"


@pytest.mark.parametrize("path", MODULES.values(), ids=MODULES)
def test_each_module_says_what_it_is(path):
    assert ast.get_docstring(tree(path))


def test_nothing_grows_unseen():
    for folder, most in LINES.items():
        files = {p: p.read_text().count("\n") for p in (ROOT / folder).rglob("*.py")}
        assert sum(files.values()) <= most, f"{folder}: {sum(files.values()):,} lines"
        assert not {str(p): n for p, n in files.items() if n > LONGEST}


@pytest.mark.parametrize(
    ("modules", "without"),
    [
        ([m for m in MODULES if m == "featlib" or m.startswith("featlib.text")], "torch"),
        ([m for m in MODULES if m.startswith("featlib.show")], "torch"),
        ([f"featlib.{name}" for name in GROUND[1:]], "torch"),
        (["featlib"], "numpy"),
        (["featlib.text.labels", "featlib.models.merging"], "transformers"),  # read by Snakemake
    ],
)
def test_what_needs_no_heavy_package_imports_none(modules, without):
    code = f"import sys, {', '.join(modules)}; print({without!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "False", done.stderr


def test_nothing_of_the_project_is_unpickled_or_takes_remote_code():
    for path in [*MODULES.values(), *(ROOT / "notebooks").glob("*.py")]:
        text = path.read_text(encoding="utf-8")
        for danger in ("pickle.load", "allow_pickle=True", "yaml.load(", "trust_remote_code=True"):
            assert danger not in text, f"{path.name}: {danger}"
