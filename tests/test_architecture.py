# SPDX-License-Identifier: Apache-2.0
"""Which module may import which: the house has floors, and imports go down."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "pose_bridge"

# From the ground up. A module imports from the floors below its own, never from a neighbour on its own floor.
FLOORS = (
    {"errors"},
    {"config"},
    {"control", "memory", "models"},
    {"geometry"},
    {"views"},
    {"photographs", "odometry", "canvas"},
    {"features"},
    {"estimators", "generators", "selection", "keyframes"},
    {"verification", "scale", "covariance", "gates", "linking", "corroboration"},
    {"generated"},
    {"bridge"},
    {"__init__"},  # what `from pose_bridge import ...` offers
    {"worker"},
    {"relocalization"},
    {"session"},
    {"simulation"},
    {"evaluation"},
    {"msg", "action", "srv"},  # generated
    {"training", "ros", "cli"},
)
FLOOR_OF = {unit: floor for floor, units in enumerate(FLOORS) for unit in units}

LEARNERS = {"estimators", "generators", "simulation", "evaluation", "training"}
ONLY_IN = {
    "torch": LEARNERS,
    "diffusers": LEARNERS,
    "transformers": LEARNERS,
    "safetensors": LEARNERS,
    "pycolmap": {"estimators", "covariance"},
    "rclpy": {"ros"},
}
TRAINERS = (
    "__main__",
    "augment",
    "losses",
    "ltx",
    "ltx_vae",
    "principal",
    "reel",
    "sets",
    "train",
    "truth",
    "vggt",
)
LEARNING_FILES = {("simulation", f"{n}.py") for n in ("batch", "batch_optics")}
LEARNING_FILES |= {("training", f"{n}.py") for n in TRAINERS}
GENERATED = {"msg", "action", "srv"}
LEARNING = {library for library, homes in ONLY_IN.items() if homes is LEARNERS}
# Neither `import pose_bridge` nor `pose_bridge --help` waits for these.
HEAVY = LEARNING | {"pycolmap", "matplotlib"}


class Import(NamedTuple):
    """One imported module, by its full dotted name."""

    line: int
    name: str
    when_loaded: bool  # False inside a function or under TYPE_CHECKING


def _is_type_checking(test: ast.expr) -> bool:
    return "TYPE_CHECKING" in {getattr(test, "id", None), getattr(test, "attr", None)}


def _nodes(node: ast.AST, when_loaded: bool = True) -> Iterator[tuple[ast.AST, bool]]:
    """Yield every node below this one, and whether it runs when the module is loaded."""
    for field, value in ast.iter_fields(node):
        later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and field == "body"
        later = later or (isinstance(node, ast.If) and field == "body" and _is_type_checking(node.test))
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield child, when_loaded and not later
                yield from _nodes(child, when_loaded and not later)


def imports(text: str, module: PurePosixPath) -> Iterator[Import]:
    """Find the imports of a module, given its text and its path from the repository's root."""
    package = module.parent.parts
    for node, when_loaded in _nodes(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            base += node.module.split(".") if node.module else []
            names = [".".join([*base, alias.name]) for alias in node.names]
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "attr", getattr(node.func, "id", "")) in {"import_module", "__import__"}
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            names = [str(node.args[0].value)]
        else:
            continue
        yield from (Import(node.lineno, name, when_loaded) for name in names)


def _unit(dotted: str) -> str:
    """Return the part of the house that a dotted name inside the package belongs to."""
    parts = dotted.split(".")
    if len(parts) > 2 or parts[-1] in FLOOR_OF or (ROOT / PACKAGE / f"{parts[-1]}.py").exists():
        return parts[1]
    return "__init__"  # `import pose_bridge`, or a name that its __init__ offers


def _unit_of_file(module: PurePosixPath) -> str:
    return module.parts[1].removesuffix(".py")


def _is_adapter(module: PurePosixPath) -> bool:
    """Whether it is there to wrap a library, and nobody loads it who does not want that."""
    shared = {"__init__.py", "base.py"}
    if module.parts[1:] in LEARNING_FILES:
        return True
    return _unit_of_file(module) in {"estimators", "generators"} and module.name not in shared


def violations(text: str, module: PurePosixPath) -> list[str]:
    """List what a module does that its floor forbids."""
    unit = _unit_of_file(module)
    if unit not in FLOOR_OF:
        return [f"{module}: '{unit}' has no floor; give it one here, in FLOORS, and in CONTRIBUTING.md"]
    found = []
    for line, name, when_loaded in imports(text, module):
        here = f"{module}:{line} imports '{name}'"
        top = name.split(".")[0]
        if top == PACKAGE:
            other = _unit(name)
            if other not in FLOOR_OF:
                found.append(f"{here}, which has no floor")
            elif other != unit and FLOOR_OF[other] >= FLOOR_OF[unit]:
                found.append(f"{here}, but {other} is not below {unit}")
            elif other in GENERATED and unit != "ros":
                found.append(f"{here}, which belongs in ros only")
        if top in ONLY_IN and unit not in ONLY_IN[top]:
            found.append(f"{here}, which belongs in {', '.join(sorted(ONLY_IN[top]))} only")
        elif top in LEARNING and when_loaded and not _is_adapter(module):
            found.append(f"{here} when it is loaded; import it inside the function that needs it")
    return found


MODULES = sorted(PurePosixPath(path.relative_to(ROOT)) for path in (ROOT / PACKAGE).rglob("*.py"))


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_go_down(module: PurePosixPath) -> None:
    assert violations((ROOT / module).read_text(encoding="utf-8"), module) == []


@pytest.mark.parametrize(
    ("module", "text", "complaint"),
    [
        ("geometry/rigid.py", "from pose_bridge.views import View", "views is not below geometry"),
        ("geometry/rigid.py", "from ..views import View", "views is not below geometry"),
        ("geometry/rigid.py", "from pose_bridge import views", "views is not below geometry"),
        ("geometry/rigid.py", "import pose_bridge.bridge as b", "bridge is not below geometry"),
        ("geometry/rigid.py", "from .. import Bridge", "__init__ is not below geometry"),
        ("geometry/__init__.py", "from .. import views", "views is not below geometry"),
        ("views.py", "def f():\n    from . import features", "features is not below views"),
        ("views.py", "if TYPE_CHECKING:\n    from .bridge import Bridge", "bridge is not below views"),
        ("views.py", "importlib.import_module('pose_bridge.bridge')", "bridge is not below views"),
        ("views.py", "from pose_bridge.nowhere import x", "has no floor"),
        ("estimators/sfm.py", "from pose_bridge.selection import x", "selection is not below estimators"),
        ("scale.py", "import pose_bridge.covariance", "covariance is not below scale"),
        ("cli/main.py", "from pose_bridge.ros import node", "ros is not below cli"),
        ("bridge.py", "def f():\n    import torch.nn", "belongs in estimators"),
        ("bridge.py", "import pycolmap", "belongs in covariance, estimators only"),
        ("session.py", "from rclpy.node import Node", "belongs in ros only"),
        ("cli/main.py", "from pose_bridge.msg import View", "belongs in ros only"),
        ("estimators/__init__.py", "import torch", "inside the function"),
        ("evaluation/metrics.py", "try:\n    import torch\nfinally:\n    pass", "inside the function"),
        ("stairs.py", "", "'stairs' has no floor"),
        ("stairs/__init__.py", "", "'stairs' has no floor"),
    ],
)
def test_a_violation_is_caught(module: str, text: str, complaint: str) -> None:
    found = violations(text, PurePosixPath(PACKAGE, module))
    assert len(found) == 1
    assert complaint in found[0]


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("bridge.py", "from pose_bridge.estimators import sfm\nfrom .geometry import rigid\nimport numpy"),
        ("estimators/sfm.py", "import pycolmap\nfrom .base import Estimator\nfrom ..views import View"),
        ("estimators/vggt.py", "import torch"),
        ("training/train.py", "def main():\n    import torch"),
        ("simulation/rooms.py", "if TYPE_CHECKING:\n    import torch"),
        ("__init__.py", "from pose_bridge.bridge import Bridge"),
        ("cli/main.py", "from pose_bridge import Bridge, errors"),
        ("ros/node.py", "import rclpy\nfrom pose_bridge.msg import View"),
    ],
)
def test_what_is_allowed_passes(module: str, text: str) -> None:
    assert violations(text, PurePosixPath(PACKAGE, module)) == []


HELP = """
from pose_bridge.cli.main import main
sys.argv = ["pose_bridge", "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""


@pytest.mark.parametrize(("start", "says"), [("", ""), (HELP, "Usage")], ids=["import", "--help"])
def test_starting_is_light(start: str, says: str) -> None:
    check = f"heavy = {HEAVY!r} & set(sys.modules)\nassert not heavy, heavy"
    command = [sys.executable, "-c", f"import sys\nimport pose_bridge\n{start}\n{check}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert says in done.stdout
