# SPDX-License-Identifier: Apache-2.0
"""Cameras and depth by VGGT, a network that looks at all pictures of a scene at once.

What it says is a guess: no point in two pictures stands behind it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from pose_bridge import models
from pose_bridge.canvas import Canvas, Size, common_size, draw
from pose_bridge.config import VggtConfig
from pose_bridge.control import Control
from pose_bridge.errors import NoEstimateError, OutOfMemoryError
from pose_bridge.estimators.base import DepthGuess, Guess
from pose_bridge.estimators.vggt import weights
from pose_bridge.estimators.vggt.network import Prediction
from pose_bridge.geometry import rigid, rotations
from pose_bridge.memory import guarded
from pose_bridge.views import View

SMALLER = "use fewer, or a smaller vggt.max_batch_tokens or vggt.long_side_px"
MOST_TOKENS_ON_CPU = 5400  # together; with more, what passes between layers falls out of its cache
LEAST_NORM = 1e-6  # of a quaternion


class VggtEstimator:
    """Guesses where the cameras of a set of views are, for many sets at once.

    Args:
        settings: Where the weights are, and how to run them.

    Raises:
        ModelError: The weights cannot be used.
    """

    name = "vggt"

    def __init__(self, settings: VggtConfig) -> None:
        self._settings = settings
        on_gpu = settings.gpu and torch.cuda.is_available()
        self._device = torch.device("cuda" if on_gpu else "cpu")
        overlay = models.folder_of(settings.overlay) if settings.overlay else None
        precision = torch.bfloat16 if on_gpu else torch.float32
        most = settings.max_batch_tokens
        self._batch_tokens = most if on_gpu else min(most, MOST_TOKENS_ON_CPU)
        self._network = weights.load(models.folder_of(settings.weights), self._device, precision, overlay)
        if settings.compile:
            self._network.aggregator.compile()

    def estimate(self, views: Sequence[View], control: Control, depth: bool = False) -> Guess:
        """See `estimate_many`."""
        return self.estimate_many([views], control, depth)[0]

    @torch.inference_mode()
    def estimate_many(
        self, sets: Sequence[Sequence[View]], control: Control, depth: bool = False
    ) -> list[Guess]:
        """Guess the cameras of each set, seen from its first one.

        A view that is in several sets is looked at by itself only once, and sets of one size run together, as
        many as `vggt.max_batch_tokens` allows; on a CPU fewer, which is faster there.

        Args:
            sets: Of at least one view each.
            control: Checked between batches.
            depth: Also guess the depth of each view.

        Raises:
            NoEstimateError: The network's answer is none.
            OutOfMemoryError: Not even one set fits.
            CancelledError, BudgetSpentError: From `control`.
        """
        long_px, patch_px = self._settings.long_side_px, self._network.size.patch_px
        by_shape: dict[tuple[Size, int], list[int]] = {}
        for index, views in enumerate(sets):
            by_shape.setdefault((common_size(views, long_px, patch_px), len(views)), []).append(index)
        guesses: dict[int, Guess] = {}
        for size, shapes in itertools.groupby(sorted(by_shape), key=lambda shape: shape[0]):
            of_size = list(shapes)
            views_by_name = {v.fingerprint: v for shape in of_size for i in by_shape[shape] for v in sets[i]}
            drawn = {name: draw(view, long_px, size) for name, view in views_by_name.items()}
            patches = dict(zip(drawn, self._embedded(list(drawn.values()), control), strict=True))
            for shape in of_size:
                for batch in self._batches(by_shape[shape], shape):
                    together = [torch.stack([patches[v.fingerprint] for v in sets[i]]) for i in batch]
                    prediction = self._predicted(torch.stack(together), size[::-1], depth, control)
                    for row, index in enumerate(batch):
                        own = [drawn[view.fingerprint] for view in sets[index]]
                        guesses[index] = _guess(sets[index], own, prediction, row)
        return [guesses[index] for index in range(len(sets))]

    def _embedded(self, drawn: Sequence[Canvas], control: Control) -> list[Tensor]:
        """Patches of each canvas, (patches, width)."""
        height, width = drawn[0].image.shape[:2]
        at_once = max(1, self._batch_tokens // self._patches((width, height)))
        found: list[Tensor] = []
        for start in range(0, len(drawn), at_once):
            control.check()
            images = np.stack([canvas.image for canvas in drawn[start : start + at_once]])
            with guarded(f"VGGT does not fit into memory with {len(images)} pictures; {SMALLER}"):
                batch = torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2) / 255.0
                found += self._network.embed(batch).unbind()
        return found

    def _patches(self, size: Size) -> int:
        width, height = (side // self._network.size.patch_px for side in size)
        return width * height

    def _batches(self, sets: Sequence[int], shape: tuple[Size, int]) -> Iterator[Sequence[int]]:
        """As many as may run together, of sets of one shape: their size, and how many views they have."""
        size, views = shape
        at_once = max(1, self._batch_tokens // (views * self._patches(size)))
        yield from (sets[start : start + at_once] for start in range(0, len(sets), at_once))

    def _predicted(
        self, patches: Tensor, size_px: tuple[int, int], depth: bool, control: Control
    ) -> Prediction:
        """Of sets of one size, (sets, views, patches, width); in halves where memory does not allow more."""
        control.check()
        try:
            with guarded(f"VGGT does not fit into memory with {patches.shape[1]} views; {SMALLER}"):
                return self._network(patches, size_px, depth)
        except OutOfMemoryError:
            if len(patches) == 1:
                raise
        torch.cuda.empty_cache()
        halves = [self._predicted(half, size_px, depth, control) for half in patches.chunk(2)]
        return Prediction(*(None if a is None else torch.cat((a, b)) for a, b in zip(*halves, strict=True)))


def _guess(views: Sequence[View], drawn: Sequence[Canvas], prediction: Prediction, row: int) -> Guess:
    """Read one set's cameras out of what the network says of all.

    Raises:
        NoEstimateError: That is no camera.
    """
    encoding = prediction.encoding[row].double().cpu().numpy()
    quaternions, angles_rad = encoding[:, 3:7], encoding[:, 7:]
    if not np.isfinite(encoding).all() or (np.linalg.norm(quaternions, axis=1) < LEAST_NORM).any():
        raise NoEstimateError("VGGT's answer is no camera")
    possible = ((angles_rad > 0.0) & (angles_rad < np.pi)).all(axis=1)
    angles_rad = np.where(possible[:, None], angles_rad, np.nan)
    T_camera_world = [
        rigid.make(rotations.rotation_from_quat_xyzw(q / np.linalg.norm(q)), t)
        for q, t in zip(quaternions, encoding[:, :3], strict=True)
    ]
    sizes = np.array([canvas.image.shape[:2] for canvas in drawn])
    focal_px = sizes / (2.0 * np.tan(angles_rad / 2.0))
    known_px = np.array([canvas.camera.mean_focal_px for canvas in drawn])
    ratio = np.sqrt(focal_px.prod(axis=1)) / known_px
    return Guess(
        T_reference_camera={
            view.id: T_camera_world[0] @ rigid.inverse(T)
            for view, T in zip(views, T_camera_world, strict=True)
        },
        focal_ratio={view.id: float(value) for view, value in zip(views, ratio, strict=True)},
        depths={} if prediction.depth is None else _depths(views, drawn, prediction, row),
    )


def _depths(
    views: Sequence[View], drawn: Sequence[Canvas], prediction: Prediction, row: int
) -> dict[str, DepthGuess]:
    assert prediction.depth is not None
    assert prediction.confidence is not None
    depth, confidence = prediction.depth[row].cpu().numpy(), prediction.confidence[row].cpu().numpy()
    return {
        view.id: DepthGuess(
            camera=canvas.camera,
            depth_up_to_scale=np.where(canvas.inside, own, np.nan),
            confidence=np.where(canvas.inside, sure, 0.0),
        )
        for view, canvas, own, sure in zip(views, drawn, depth, confidence, strict=True)
    }
