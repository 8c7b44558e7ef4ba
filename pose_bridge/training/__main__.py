# SPDX-License-Identifier: Apache-2.0
"""Trains one of the small models.

    python -m pose_bridge.training vggt-mini --out build/training/vggt-mini

A run can be stopped at any time, or killed; the same command goes on. `accelerate launch -m` spreads it over
processes. TensorBoard reads `--out`. docs/training.md has them all.
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
from pathlib import Path

from pose_bridge.errors import PoseBridgeError
from pose_bridge.training.train import Recipe, Trainer

STEPS = 40_000
RECIPES = ("vggt-mini", "vggt-mini-wide", "ltx-mini-vae", "ltx-mini")


def recipe_of(args: argparse.Namespace) -> Recipe:
    """Return what is asked for; diffusers takes seconds to come, so only who needs it waits for it."""
    common = args.footage, args.steps, args.seed
    if args.recipe.startswith("vggt"):
        from pose_bridge.training.vggt import VggtRecipe

        return VggtRecipe(*common, wide=args.recipe.endswith("wide"), compiled=args.compile)
    if args.recipe == "ltx-mini-vae":
        from pose_bridge.training.ltx_vae import LtxVaeRecipe

        return LtxVaeRecipe(*common)
    from pose_bridge.training.ltx import LtxRecipe

    return LtxRecipe(*common, args.vae, compiled=args.compile)


def main() -> None:
    """Train one of the models that ship with the package."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", choices=RECIPES)
    parser.add_argument(
        "--out", type=Path, required=True, help="states, log and export; goes on with what is there"
    )
    parser.add_argument(
        "--footage", type=Path, default=Path("build/footage"), help="with `train` and `validation`"
    )
    parser.add_argument("--steps", type=int, default=STEPS, help="of the whole run")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="stop after these, to go on another time"
    )
    parser.add_argument("--begin", type=Path, help="folder of another run, whose state this one begins from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--vae",
        type=Path,
        default=Path("build/training/ltx-mini-vae/export/vae"),
        help="that ltx-mini packs with",
    )
    parser.add_argument(
        "--compile", action="store_true", help="minutes at first, then faster steps; not ltx-mini-vae"
    )
    args = parser.parse_args()
    try:
        trainer = Trainer(recipe_of(args), args.out, args.begin)

        def stop(*_: object) -> None:
            trainer.stop = True

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        done = trainer.run(args.minutes)
    except (PoseBridgeError, OSError) as error:
        sys.exit(str(error))
    how = "done" if done else "stopped"
    print(f"{how} at step {trainer.course.step}; {args.out / 'export'} holds the model")


if __name__ == "__main__":
    main()
