# SPDX-License-Identifier: Apache-2.0
"""The worker's front door, run by its path: `python .../pose_bridge/worker/__main__.py FILE_DESCRIPTOR`.

The interpreter may be one that has other packages, no pose_bridge or another version of it, so the library is
taken from here, and nothing else is: the folder around it may belong to another interpreter.
"""

import importlib.util
import sys
from pathlib import Path


def adopt_library() -> None:
    """Make `import pose_bridge` find the package that this file lies in."""
    here = Path(__file__).parent
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").absolute() != here]
    spec = importlib.util.spec_from_file_location("pose_bridge", here.parent / "__init__.py")
    assert spec is not None and spec.loader is not None
    package = sys.modules["pose_bridge"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)


if __name__ == "__main__":
    if not __package__:
        adopt_library()
    from pose_bridge.worker.server import main

    main(int(sys.argv[1]))
