# SPDX-License-Identifier: Apache-2.0
"""Walks through simulated houses, rendered once and read many times.

    python -m pose_bridge.training.footage build/footage --split train --houses 500

A file a house, `00012.npz`; those that lie there are not made again.
"""

from __future__ import annotations

import argparse
import hashlib
import zipfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from pose_bridge.errors import BadInputError
from pose_bridge.geometry.arrays import Array, Mask
from pose_bridge.simulation.walks import FRAMES, ROOMS, WALKS, Facing, Split, walk

SIZE = (64, 48)
KEPT = "images depths_m T_world_camera focals outward"


@dataclass(frozen=True, eq=False)
class Footage:
    """W walks of `FRAMES` frames each, N.

    Attributes:
        images: uint8 RGB, (W, N, H, W, 3).
        depths_m: float16, (W, N, H, W).
        T_world_camera: (W, N, 4, 4).
        focals: Of the cameras, by the longer side of the pictures, (W,).
        outward: Whether the camera looks outwards, else around a thing, bool (W,).
    """

    images: NDArray[np.uint8]
    depths_m: NDArray[np.float16]
    T_world_camera: Array
    focals: Array
    outward: Mask

    def described(self) -> dict[str, Any]:
        """What tells it from other footage."""
        digest = hashlib.blake2b(digest_size=6)
        for some in (self.T_world_camera, self.focals, self.images[:, 0]):
            digest.update(some.tobytes())
        return {"walks": len(self.focals), "footage": digest.hexdigest()}

    def turns_deg(self) -> Array:
        """Return the angles between all frames of each walk, (W, N, N)."""
        R = self.T_world_camera[:, :, :3, :3]
        cosine = (np.einsum("wnij,wmij->wnm", R, R) - 1.0) / 2.0
        return np.asarray(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))


def film(split: Split, house: int, size: tuple[int, int] = SIZE) -> Footage:
    """Render the walks through a house; those that found no way are left out.

    Args:
        split: Whose house.
        house: Which.
        size: Width and height of the pictures, px.
    """
    walks = []
    for room in range(ROOMS):
        for number in range(WALKS):
            try:
                walks.append(walk(split, house, room, number))
            except BadInputError:
                continue
    pictures = [[one.picture(frame, *size) for frame in range(FRAMES)] for one in walks]
    return Footage(
        np.array([[image for image, _ in row] for row in pictures]),
        np.array([[depth_m for _, depth_m in row] for row in pictures], np.float16),
        np.array([one.T_world_camera for one in walks]),
        np.array([one.focal for one in walks]),
        np.array([one.facing is Facing.OUTWARD for one in walks]),
    )


def write(folder: Path, split: Split, size: tuple[int, int], house: int) -> None:
    """Render a house into a file, whole or not at all."""
    path = folder / f"{house:05d}.npz"
    if path.exists():
        return
    made = film(split, house, size)
    new = path.with_suffix(".part")
    with new.open("wb") as file:
        np.savez(file, **{name: getattr(made, name) for name in KEPT.split()})
    new.replace(path)


def read(folder: Path) -> Footage:
    """Read what was rendered into a folder, all of it into memory.

    Raises:
        BadInputError: There is nothing, or a file is not what `write` wrote.
    """
    parts: dict[str, list[NDArray[np.generic]]] = {name: [] for name in KEPT.split()}
    for path in sorted(folder.glob("*.npz")):
        try:
            with path.open("rb") as raw, np.load(raw) as file:
                for name, found in parts.items():
                    found.append(file[name])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise BadInputError(f"{path}: no footage: {error}; delete it and render it again") from error
    try:
        return Footage(*(np.concatenate(found) for found in parts.values()))
    except ValueError as error:
        raise BadInputError(
            f"{folder} holds no footage of one size ({error}); make it with pose_bridge.training.footage"
        ) from error


def main() -> None:
    """Render."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", choices=[split.name.lower() for split in Split], default="train")
    parser.add_argument("--houses", type=int, default=500)
    parser.add_argument("--size", type=int, nargs=2, default=SIZE, metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    one = partial(write, args.folder, Split[args.split.upper()], tuple(args.size))
    with ProcessPoolExecutor(args.workers, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        for _ in track(pool.map(one, range(args.houses)), "rendering houses", total=args.houses):
            pass


if __name__ == "__main__":
    main()
