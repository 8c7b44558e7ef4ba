# SPDX-License-Identifier: Apache-2.0
"""Guesses for many sets of views at once."""

from __future__ import annotations

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from installed import require_learned

require_learned()

import torch  # noqa: E402
from checkpoints import save_vggt, vggt_state  # noqa: E402

from pose_bridge.config import VggtConfig  # noqa: E402
from pose_bridge.control import Control  # noqa: E402
from pose_bridge.errors import CancelledError, NoEstimateError, OutOfMemoryError  # noqa: E402
from pose_bridge.estimators.vggt.estimator import VggtEstimator  # noqa: E402
from pose_bridge.estimators.vggt.network import REFINEMENTS  # noqa: E402
from pose_bridge.geometry import rigid  # noqa: E402
from pose_bridge.geometry.cameras import Camera  # noqa: E402
from pose_bridge.views import View  # noqa: E402

CAMERA = Camera.from_focal_px(60.0, 80, 60)


def view(index: int) -> View:
    noise = np.random.default_rng(index).integers(0, 256, (60, 80, 3), np.uint8)
    return View(id=f"v{index}", image=cv2.GaussianBlur(noise, (0, 0), 2.0), camera=CAMERA)


VIEWS = [view(index) for index in range(6)]
SETS = [VIEWS[:2], VIEWS[1:4], [VIEWS[0], VIEWS[5]], VIEWS[2:5], [VIEWS[3]], VIEWS[3:]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_vggt(tmp_path_factory.mktemp("vggt"))


def estimator(folder: Path, **more: object) -> VggtEstimator:
    return VggtEstimator(VggtConfig(weights=str(folder), long_side_px=56, gpu=False, **more))


@pytest.mark.parametrize("max_batch_tokens", [1, 30, 100000])
def test_many_at_once_are_as_one_by_one(folder: Path, max_batch_tokens: int) -> None:
    network = estimator(folder, max_batch_tokens=max_batch_tokens)
    alone = [network.estimate(views, Control(), depth=True) for views in SETS]
    for one, many in zip(alone, network.estimate_many(SETS, Control(), depth=True), strict=True):
        assert one.T_reference_camera.keys() == many.T_reference_camera.keys()
        for name, T in one.T_reference_camera.items():
            np.testing.assert_allclose(many.T_reference_camera[name], T, atol=1e-4)
            depth, again = one.depths[name].depth_up_to_scale, many.depths[name].depth_up_to_scale
            np.testing.assert_allclose(again, depth, rtol=1e-4)
            assert many.focal_ratio[name] == pytest.approx(one.focal_ratio[name], rel=1e-4)


def test_a_view_is_embedded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = estimator(folder)
    seen: list[int] = []
    embed = network._network.embed
    monkeypatch.setattr(network._network, "embed", lambda images: seen.append(len(images)) or embed(images))
    network.estimate_many(SETS, Control())
    assert sum(seen) == len(VIEWS)


def test_batches_hold_sets_of_one_size_and_no_more_than_fit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = estimator(folder, max_batch_tokens=72)  # 12 patches a view: two sets of three views
    shapes: list[tuple[int, int]] = []
    forward = network._network.forward
    monkeypatch.setattr(
        network._network,
        "forward",
        lambda patches, *more: shapes.append(tuple(patches.shape[:2])) or forward(patches, *more),
    )
    network.estimate_many(SETS, Control())
    assert sorted(shapes) == [(1, 1), (1, 3), (2, 2), (2, 3)]


def test_what_a_guess_holds(folder: Path) -> None:
    guess = estimator(folder).estimate(VIEWS[:3], Control(), depth=True)
    np.testing.assert_allclose(guess.T_reference_camera["v0"], np.eye(4), atol=1e-9)
    for T in guess.T_reference_camera.values():
        rigid.rigid(T)
    assert np.linalg.norm(guess.T_reference_camera["v1"][:3, 3]) > 0.0
    depth = guess.depths["v1"]
    assert (
        depth.depth_up_to_scale.shape == depth.confidence.shape == (depth.camera.height, depth.camera.width)
    )
    known = ~np.isnan(depth.depth_up_to_scale)
    assert (depth.depth_up_to_scale[known] > 0.0).all()
    assert (depth.confidence[known] > 1.0).all()
    assert (depth.confidence[~known] == 0.0).all()
    assert estimator(folder).estimate(VIEWS[:3], Control()).depths == {}


def test_a_wrong_focal_length_shows(folder: Path) -> None:
    narrow = [View(id=v.id, image=v.image, camera=Camera.from_focal_px(120.0, 80, 60)) for v in VIEWS[:2]]
    network = estimator(folder)
    one, other = (network.estimate(views, Control()).focal_ratio["v0"] for views in (VIEWS[:2], narrow))
    assert other == pytest.approx(one / 2.0, rel=1e-6)


def test_weights_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As profiles name them."""
    save_vggt(tmp_path / "vggt")
    monkeypatch.setenv("HOME", str(tmp_path))
    VggtEstimator(VggtConfig(weights="~/vggt", gpu=False))


def saying(folder: Path, encoding: list[float]) -> VggtEstimator:
    """A network that says the same of every view."""
    state = vggt_state()
    state["camera_head.pose_branch.fc2.weight"].zero_()
    state["camera_head.pose_branch.fc2.bias"].copy_(torch.tensor(encoding) / REFINEMENTS)
    return estimator(save_vggt(folder, state))


def test_an_answer_that_is_no_camera(tmp_path: Path) -> None:
    no_rotation = [0, 0, 0, 0, 0, 0, 0, 0.9, 0.9]
    with pytest.raises(NoEstimateError, match="no camera"):
        saying(tmp_path, no_rotation).estimate(VIEWS[:2], Control())


@pytest.mark.parametrize("angles", [[0.0, 0.9], [-1.0, -1.0], [3.2, 0.9]])
def test_a_field_of_view_that_no_camera_has(tmp_path: Path, angles: list[float]) -> None:
    """Of a frame that melted it may be, and the ends' cameras be right: who asks decides."""
    found = saying(tmp_path, [0, 0, 0, 0, 0, 0, 1, *angles]).estimate(VIEWS[:2], Control())
    assert np.isnan(list(found.focal_ratio.values())).all()
    assert np.isfinite(list(found.T_reference_camera.values())).all()


def test_sets_are_drawn_as_if_they_were_alone(folder: Path) -> None:
    """Whatever shapes of pictures others have."""
    tall = Camera.from_focal_px(60.0, 60, 80)
    image = np.random.default_rng(9).integers(0, 256, (80, 60, 3)).astype(np.uint8)
    sets = [VIEWS[:2], [VIEWS[0], View(id="tall", image=image, camera=tall)], VIEWS[2:4]]
    network = estimator(folder)
    together = network.estimate_many(sets, Control())
    for views, many in zip(sets, together, strict=True):
        alone = network.estimate(views, Control())
        for name, T in alone.T_reference_camera.items():
            np.testing.assert_allclose(many.T_reference_camera[name], T, atol=1e-4)


def test_too_little_memory_for_the_pictures(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = estimator(folder)

    def embed(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(network._network, "embed", embed)
    with pytest.raises(OutOfMemoryError, match="pictures"):
        network.estimate(VIEWS[:2], Control())


def test_numbers_without_end_are_no_answer(tmp_path: Path) -> None:
    state = vggt_state()
    state["camera_head.token_norm.weight"].fill_(3e38)
    with pytest.raises(NoEstimateError, match="no camera"):
        estimator(save_vggt(tmp_path, state)).estimate(VIEWS[:2], Control())


def test_cancelled(folder: Path) -> None:
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(CancelledError):
        estimator(folder).estimate_many(SETS, Control(cancelled))


def test_too_little_memory_means_fewer_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = estimator(folder)
    expected = network.estimate_many([VIEWS[:2]] * 4, Control())
    forward, most = network._network.forward, 1

    def scarce(patches: torch.Tensor, *more: object) -> object:
        if len(patches) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(patches, *more)

    monkeypatch.setattr(network._network, "forward", scarce)
    found = network.estimate_many([VIEWS[:2]] * 4, Control())
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(one.T_reference_camera["v1"], other.T_reference_camera["v1"], atol=1e-4)
    most = 0
    with pytest.raises(OutOfMemoryError, match="long_side_px"):
        network.estimate_many([VIEWS[:2]] * 4, Control())
