"""The floors of the package: imports go down only, neighbours do not know each other, and libraries have gates.

The table is held against the source text, so that an import inside a function counts like one at the top. An import
under `if TYPE_CHECKING:` loads nothing and passes the library gates, but still has to go down.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

FLOORS = {
    "_types": 0,
    "_results": 0,
    "_errors": 0,
    "_checks": 0,
    "_cpu": 0,
    "_cache": 0,
    "native": 0,
    "_choices": 0,
    "_elementary": 0,
    "_intervals": 0,
    "_activation_report": 0,
    "saved": 0,
    "activations": 0,
    "activation_check": 0,
    "weights": 0,
    "fields": 1,
    "invariants": 2,
    "structure": 2,
    "oracles": 2,
    "solvers": 3,
    "simulate": 4,
    "audit": 5,
    "orbits": 5,
    "sweeps": 6,
    "tuning": 6,
    "memory": 6,
    "reproduce": 6,
    "plotting": 7,
    "report": 8,
    "audit_command": 9,
    "judge_command": 9,
    "tune_command": 9,
    "sweep_options": 9,
    "doctor": 9,
    "cli": 9,
    "__main__": 10,
}

# Neighbours on one floor that belong to one room: the check of activations, the
# settings of a CPU and its native loops, and what the commands are made of.
SAME_ROOM = {
    "activation_check": "activations",
    "_cpu": "native",
    "audit_command": "cli",
    "judge_command": "cli",
    "tune_command": "cli",
    "sweep_options": "cli",
    "doctor": "cli",
}

EVERYWHERE = {"jax", "jaxtyping", "equinox", "numpy"}
NUMERICS = {"diffrax", "optimistix", "lineax"}  # from floor 3 up
GATES = {
    "tuning": {"optax", "rich"},
    "memory": {"optax"},
    "sweeps": {"xarray", "zarr", "dask", "distributed", "pydantic", "rich"},
    "plotting": {"matplotlib", "cycler"},
    # The page lays plotting's pictures onto figures of its own sizes, and packs them small.
    "report": {"jinja2", "markupsafe", "matplotlib", "PIL"},
    "audit_command": {"cyclopts"},
    "judge_command": {"cyclopts"},
    "tune_command": {"cyclopts"},
    "sweep_options": {"cyclopts"},
    "doctor": {"rich"},
    "cli": {"cyclopts", "rich"},
}


class Import(NamedTuple):
    """One import: where it stands, what it asks for, and whether it only serves the type checker."""

    where: str
    module: str
    only_types: bool


def imports_of(path: Path, package: Path) -> Iterator[Import]:
    """Every import of a file as absolute dotted names; `from . import a, b` asks for two modules."""
    inside = ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")
    is_package = path.name == "__init__.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node, only_types in _import_statements(tree):
        where = f"{path.relative_to(package.parent)}:{node.lineno}"
        if isinstance(node, ast.Import):
            yield from (Import(where, alias.name, only_types) for alias in node.names)
            continue
        base = node.module or ""
        if node.level:
            parents = inside.split(".")
            parents = parents[: len(parents) - node.level + is_package]
            base = ".".join([*parents, base]) if base else ".".join(parents)
        yield from (Import(where, f"{base}.{alias.name}", only_types) for alias in node.names)


def _import_statements(node: ast.AST, only_types: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, only_types
        guard = isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        yield from _import_statements(child, only_types or guard)


def room_of(path: Path, package: Path) -> str:
    """The top-level module or folder a file belongs to."""
    return path.relative_to(package).with_suffix("").parts[0]


def violations(package: Path) -> list[str]:
    """Every broken rule of a package folder, as sentences."""
    found = []
    for path in sorted(package.rglob("*.py")):
        room = room_of(path, package)
        if room == "__init__":  # the table of contents of the whole package
            continue
        if room not in FLOORS:
            found.append(f"{room} has no floor: add it to the table of tests/test_layers.py")
            continue
        for imported in imports_of(path, package):
            complaint = complaint_about(imported, room, package.name)
            if complaint:
                found.append(f"{imported.where} {complaint}")
    return found


def complaint_about(imported: Import, room: str, package: str) -> str | None:
    """What is wrong with one import in this room, None if nothing."""
    top, *rest = imported.module.split(".")
    if top == package:
        return _inner_complaint(room, rest[0] if rest else "")
    if top in sys.stdlib_module_names:
        return None
    if any(part.startswith("_") for part in rest) or imported.module.startswith("equinox.internal"):
        return f"imports {imported.module}, which its library keeps private"
    allowed = EVERYWHERE | GATES.get(room, set()) | (NUMERICS if FLOORS[room] >= 3 else set())
    if not imported.only_types and top not in allowed:
        return f"imports {top}, whose gate is not {room}"
    return None


def _inner_complaint(room: str, target: str) -> str | None:
    if target == "__version__":  # a fact about the package, set before any of its modules is loaded
        return None
    if target not in FLOORS:
        return None if FLOORS[room] >= 9 else f"imports {target or 'the package'} from the package's own front door"
    if SAME_ROOM.get(room, room) == SAME_ROOM.get(target, target):
        return None
    if FLOORS[target] > FLOORS[room]:
        return f"(floor {FLOORS[room]}) imports {target} from above (floor {FLOORS[target]})"
    if FLOORS[target] == FLOORS[room] and not target.startswith("_"):
        return f"imports its neighbour {target} on floor {FLOORS[room]}"
    return None


def test_the_package_keeps_its_floors(repository):
    assert violations(repository / "jaxosc") == []


@pytest.mark.parametrize(
    ("file", "source", "complaint"),
    [
        ("solvers/a.py", "from ..simulate import engine", "from above"),
        ("solvers/a.py", "def f():\n    from jaxosc.sweeps.plan import Plan", "from above"),
        ("fields.py", "if TYPE_CHECKING:\n    from .oracles import x", "from above"),
        ("sweeps/a.py", "from ..tuning import design", "neighbour tuning"),
        ("weights/a.py", "from ..activations import Tanh", "neighbour activations"),
        ("fields.py", "import diffrax", "imports diffrax, whose gate"),
        ("plotting/a.py", "import xarray", "imports xarray, whose gate"),
        ("sweeps/a.py", "import matplotlib.pyplot", "imports matplotlib, whose gate"),
        ("solvers/a.py", "from diffrax._misc import x", "keeps private"),
        ("simulate/a.py", "import jaxosc as jo", "front door"),
        ("helpers.py", "import math", "has no floor"),
    ],
)
def test_a_broken_rule_is_found(tmp_path, file, source, complaint):
    path = tmp_path / "jaxosc" / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    (found,) = violations(tmp_path / "jaxosc")
    assert complaint in found


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("__init__.py", "from .cli import main"),
        ("weights/__init__.py", "from ._base import A\nfrom .. import _types"),
        ("sweeps/a.py", "from .. import activations, weights\nfrom . import plan\nimport xarray, diffrax, json"),
        ("plotting/a.py", "if TYPE_CHECKING:\n    import xarray"),
        ("activation_check.py", "from .activations import Tanh"),
        ("cli.py", "def f():\n    from . import sweeps, report, __version__"),
    ],
)
def test_what_is_allowed_passes(tmp_path, file, source):
    path = tmp_path / "jaxosc" / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    assert violations(tmp_path / "jaxosc") == []
