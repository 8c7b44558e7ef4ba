# SPDX-License-Identifier: Apache-2.0
"""What has to hold of the files before anything is released."""

import ast
import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SPDX = "# SPDX-License-Identifier: Apache-2.0"

# Folders that every Linux has: naming them says nothing about one machine.
EVERYWHERE = {"bin", "boot", "dev", "etc", "lib", "opt", "proc", "run", "sys", "tmp", "usr", "var"}
ABSOLUTE = re.compile(r"(?<![\w.~$%)}>:/*-])/(\w[\w.-]*)/(\w[\w.-]*)")


def _files() -> Iterator[Path]:
    """Yield the repository's files, without what is built, cached or installed in it."""
    for folder, folders, names in os.walk(ROOT):
        here = Path(folder)
        folders[:] = [
            name
            for name in folders
            if name not in {"build", "dist", "install", "log", "__pycache__"}
            and not name.endswith(".egg-info")
            and (not name.startswith(".") or name == ".ci")
            and not (here / name / "pyvenv.cfg").exists()
        ]
        yield from (here / name for name in names if name != ".git")


def _machine_paths(text: str, exists: Callable[[Path], bool] = Path.exists) -> list[str]:
    """Find the absolute paths that are somebody's: a home, or a folder that exists on this very machine."""
    return [
        match[0]
        for match in ABSOLUTE.finditer(text)
        if match[1] in {"home", "Users", "root"} or (match[1] not in EVERYWHERE and exists(Path(match[0])))
    ]


def test_one_version() -> None:
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    keywords = [node for node in ast.walk(tree) if isinstance(node, ast.keyword)]
    stated = [ast.literal_eval(keyword.value) for keyword in keywords if keyword.arg == "version"]
    changes = (ROOT / "CHANGELOG.rst").read_text(encoding="utf-8")
    newest = re.search(r"^(\d+\.\d+\.\d+) \(\d{4}-\d{2}-\d{2}\)\n-+$", changes, re.MULTILINE)
    package = ET.parse(ROOT / "package.xml").getroot()
    assert newest is not None
    assert [*stated, package.findtext("version")] == [newest[1], newest[1]]
    assert package.findtext("description") == next(
        ast.literal_eval(keyword.value) for keyword in keywords if keyword.arg == "description"
    )


def test_every_python_file_names_its_licence() -> None:
    files = [path for path in _files() if path.suffix == ".py"]
    assert ROOT / "pose_bridge" / "__init__.py" in files
    nameless = []
    for path in files:
        lines = path.read_text(encoding="utf-8").splitlines()
        if lines[:1] != [SPDX] and not (lines[0:1] and lines[0].startswith("#!") and lines[1:2] == [SPDX]):
            nameless.append(str(path.relative_to(ROOT)))
    assert nameless == []


def test_the_licence_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert re.match(r"\s*Apache License\s+Version 2\.0, January 2004\s", text)
    assert "END OF TERMS AND CONDITIONS" in text


def test_no_file_names_a_path_of_one_machine() -> None:
    found = []
    for path in _files():
        data = path.read_bytes()
        if b"\0" not in data:
            names = _machine_paths(data.decode("utf-8", "replace"))
            found += [f"{path.relative_to(ROOT)}: {name}" for name in names]
    assert found == []


def test_a_path_of_one_machine_is_caught() -> None:
    home, disk = "/" + "home/alice", "/" + "disk7/data"
    assert _machine_paths(f"see {home}/photos") == [home]
    assert _machine_paths(f"cp '{disk}/x' {home} .", lambda path: True) == [disk, home]
    assert _machine_paths(f"cp '{disk}/x' .", lambda path: False) == []
    innocent = "/usr/bin/env, https://example.org/home/x, ../home/x, a/home/x, ~/home/x, 1/2/3"
    assert _machine_paths(innocent, lambda path: True) == []
