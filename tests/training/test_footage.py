# SPDX-License-Identifier: Apache-2.0
"""What was rendered is what is read."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pose_bridge.errors import BadInputError
from pose_bridge.simulation.walks import FRAMES, Facing, Split, walk
from pose_bridge.training import footage


def test_pictures_are_those_of_the_walks(footage_folder: Path) -> None:
    read = footage.read(footage_folder / "train")
    one = walk(Split.TRAIN, 0, 0, 0)
    image, depth_m = one.picture(5, *footage.SIZE)
    np.testing.assert_array_equal(read.images[0, 5], image)
    np.testing.assert_allclose(read.depths_m[0, 5], depth_m, rtol=1e-3)
    np.testing.assert_array_equal(read.T_world_camera[0], one.T_world_camera)
    assert read.focals[0] == one.focal
    assert read.outward[0] == (one.facing is Facing.OUTWARD)
    assert read.images.shape[1:] == (FRAMES, 48, 64, 3)


def test_what_is_there_is_not_rendered_again(footage_folder: Path) -> None:
    (path,) = (footage_folder / "train").glob("*.npz")
    before = path.stat().st_mtime_ns
    footage.write(path.parent, Split.TRAIN, footage.SIZE, 0)
    assert path.stat().st_mtime_ns == before


def test_half_a_file_is_named(footage_folder: Path, tmp_path: Path) -> None:
    (whole,) = (footage_folder / "train").glob("*.npz")
    (tmp_path / "00000.npz").write_bytes(whole.read_bytes()[:1000])
    with pytest.raises(BadInputError, match=r"00000\.npz.*render it again"):
        footage.read(tmp_path)
    with pytest.raises(BadInputError, match="holds no footage"):
        footage.read(footage_folder / "nowhere")


def test_other_pictures_are_other_footage(footage_folder: Path) -> None:
    """Of the same walks, too: smaller ones, or by another renderer."""
    shot = footage.read(footage_folder / "train")
    described = [
        dataclasses.replace(shot, images=images).described()["footage"]
        for images in (shot.images, shot.images.copy(), shot.images[:, :, ::2], 255 - shot.images)
    ]
    assert described[0] == described[1]
    assert len(set(described)) == 3
