# SPDX-License-Identifier: Apache-2.0
"""A little footage, rendered once."""

from __future__ import annotations

from functools import partialmethod
from pathlib import Path

import pytest
from installed import require_learned

require_learned()


@pytest.fixture(scope="session")
def footage_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`train` and `validation`, a house each, of one room."""
    from pose_bridge.simulation.walks import Split
    from pose_bridge.training import footage

    folder = tmp_path_factory.mktemp("footage")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(footage, "ROOMS", 1)
        for split in (Split.TRAIN, Split.VALIDATION):
            place = folder / split.name.lower()
            place.mkdir()
            footage.write(place, split, footage.SIZE, 0)
    return folder


@pytest.fixture
def only_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules that compile are traced and no more: what a compiler makes of them would take minutes."""
    from torch import nn

    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))
