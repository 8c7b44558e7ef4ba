# SPDX-License-Identifier: Apache-2.0
"""What the generated rung costs: seconds of each part, peak memory, and how soon it ends when cancelled.

    python benchmarks/generated.py [--size small] [--full] [--seed 0]

The whole ladder through the real loading code, on random weights in the published formats, as speed does not
depend on their values: two pictures that share nothing, 25 frames of 512x320 in 8 steps, 4 videos, consensus.
`--size full` is VGGT-1B and LTX-Video 13B, for a GPU with 80 GB; it writes 32 GB of weights to the temporary
folder first. `small` is a thousandth of it, with frames of 192x128, and shows that all of it runs anywhere.
Cancelled at five moments, 20 with `--full`.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import consensus
import numpy as np
import report
import torch
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from safetensors.torch import save_file

from pose_bridge import models
from pose_bridge.bridge import Bridge
from pose_bridge.control import Control
from pose_bridge.errors import CancelledError
from pose_bridge.geometry.cameras import Camera
from pose_bridge.views import Question, Stage, View

WIDTH_PX, HEIGHT_PX = 512, 320
VIDEOS, FRAMES, PROMPTS, WORDS = 4, 25, 2, 128
MOST_S = 4.0  # on an H200
CANCEL_S = 0.5
VAE_095: dict[str, Any] = {  # of LTX-Video 0.9.5 and later
    "down_block_types": ("LTXVideo095DownBlock3D",) * 4,
    "spatio_temporal_scaling": (True,) * 4,
    "decoder_spatio_temporal_scaling": (True,) * 3,
    "decoder_inject_noise": (False,) * 4,
    "downsample_type": ("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
    "upsample_residual": (True,) * 3,
    "upsample_factor": (2,) * 3,
    "timestep_conditioning": True,
    "spatial_compression_ratio": 32,
    "temporal_compression_ratio": 8,
}
SIZES: dict[str, dict[str, Any]] = {
    "full": {
        "vggt": "full",
        "vggt_long_side_px": 518,
        "long_side_px": WIDTH_PX,
        "transformer": {
            "num_layers": 48,
            "num_attention_heads": 32,
            "attention_head_dim": 128,
            "cross_attention_dim": 4096,
            "caption_channels": 4096,
        },
        "vae": {
            "block_out_channels": (128, 256, 512, 1024, 2048),
            **VAE_095,
            "decoder_block_out_channels": (256, 512, 1024),
            "layers_per_block": (4, 6, 6, 2, 2),
            "decoder_layers_per_block": (5, 5, 5, 5),
        },
    },
    "small": {
        "vggt": "small",
        "vggt_long_side_px": 112,
        "long_side_px": 192,
        "transformer": {
            "num_layers": 4,
            "num_attention_heads": 4,
            "attention_head_dim": 32,
            "cross_attention_dim": 128,
            "caption_channels": 128,
        },
        "vae": {
            "block_out_channels": (16, 32, 64, 128, 256),
            **VAE_095,
            "decoder_block_out_channels": (32, 64, 128),
            "layers_per_block": (1, 1, 1, 1, 1),
            "decoder_layers_per_block": (1, 1, 1, 1),
        },
    },
}


def save(size: str, folder: Path) -> None:
    """Write random weights, as checkpoints are published, and prompts as a text encoder would have them."""
    sizes = SIZES[size]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for part in ("vggt", "ltx"):
        (folder / part).mkdir()
    consensus.save(sizes["vggt"], folder / "vggt")
    torch.manual_seed(0)
    for kind, part in ((LTXVideoTransformer3DModel, "transformer"), (AutoencoderKLLTXVideo, "vae")):
        torch.set_default_dtype(torch.bfloat16)
        try:
            with device:
                kind(**sizes[part]).save_pretrained(folder / "ltx" / part)
        finally:
            torch.set_default_dtype(torch.float32)
    embedded = {}
    for number in range(PROMPTS):
        embedded[f"{number}.embeds"] = torch.randn(1, WORDS, sizes["transformer"]["caption_channels"])
        embedded[f"{number}.mask"] = torch.ones(1, WORDS, dtype=torch.bool)
    save_file(embedded, folder / "ltx" / models.PROMPTS, {str(n): f"prompt {n}" for n in range(PROMPTS)})


def bridge(size: str, folder: Path) -> Bridge:
    """The ladder on those weights: nothing that they make is dropped."""
    sizes = SIZES[size]
    settings = {
        "vggt": {"weights": str(folder / "vggt"), "long_side_px": sizes["vggt_long_side_px"]},
        "ltx": {
            "weights": str(folder / "ltx"),
            "num_frames": FRAMES,
            "long_side_px": sizes["long_side_px"],
            "max_end_difference": 100.0,
        },
        "generated": {"videos": VIDEOS, "max_spread_deg": 270.0, "max_focal_ratio": 10.0},
    }
    return Bridge(models.configured(settings))


def question(seed: int) -> Question:
    """Two pictures that share nothing."""
    camera = Camera.from_focal_px(400.0, WIDTH_PX, HEIGHT_PX)
    rng = np.random.default_rng(seed)

    def view(name: str) -> View:
        image = rng.integers(0, 256, (HEIGHT_PX, WIDTH_PX, 3)).astype(np.uint8)
        return View(id=name, image=image, camera=camera)

    return Question(
        reference=view("reference"), target=view("target"), allow_hypothesis=True, budget_s=3600.0, seed=seed
    )


class Clock:
    """Seconds between what the ladder says, summed up by what it was doing."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._doing, self._since_s = "", time.perf_counter()

    def __call__(self, text: str) -> None:
        now_s = time.perf_counter()
        if self._doing:
            self.seconds[self._doing] = self.seconds.get(self._doing, 0.0) + now_s - self._since_s
        rung, _, what = text.partition(": ")
        self._doing = "videos" if what.startswith(("video", "step")) else what if what else rung
        self._since_s = now_s


def timed(ladder: Bridge, asked: Question) -> tuple[dict[str, float], float]:
    """Seconds of each part of one answer, and of all."""
    clock, start_s = Clock(), time.perf_counter()
    answer = ladder.answer(asked, Control(on_progress=clock))
    total_s = time.perf_counter() - start_s
    clock("the end")
    if answer.stage is not Stage.GENERATED:
        raise SystemExit(f"no guess came of it: {answer.reason_text}")
    return clock.seconds, total_s


def cancelled(ladder: Bridge, asked: Question, after_s: float) -> float:
    """Seconds from the cancel to the end; 0 if the answer was quicker."""
    cancel = threading.Event()
    at_s: list[float] = []

    def stop() -> None:
        at_s.append(time.perf_counter())
        cancel.set()

    timer = threading.Timer(after_s, stop)
    timer.start()
    try:
        ladder.answer(asked, Control(cancel))
    except CancelledError:
        return time.perf_counter() - at_s[0]
    finally:
        timer.cancel()
    return 0.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="more rounds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", choices=SIZES, default="small")
    args = parser.parse_args()
    rounds, cancels = (5, 20) if args.full else (2, 5)
    on_gpu = torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as folder:
        report.progress(0, rounds + cancels, "writing random weights")
        save(args.size, Path(folder))
        ladder = bridge(args.size, Path(folder))
        start_s = time.perf_counter()
        ladder.load()
        load_s = time.perf_counter() - start_s
    asked = question(args.seed)
    timed(ladder, asked)  # kernels are chosen, memory is taken
    parts, totals = [], []
    for done in range(rounds):
        report.progress(done, rounds + cancels, "answering")
        seconds, total_s = timed(ladder, asked)
        parts.append(seconds)
        totals.append(total_s)
    typical_s = float(np.median(totals))
    ends = []
    for done in range(cancels):
        report.progress(rounds + done, rounds + cancels, "cancelling")
        ends.append(cancelled(ladder, asked, typical_s * (done + 0.5) / cancels))
    report.progress(rounds + cancels, rounds + cancels, "done")
    learned_s = [
        sum(some[name] for name in some if name in ("videos", "looking for agreement")) for some in parts
    ]
    report.finish(
        "generated",
        args.seed,
        {
            "size": args.size,
            "on": torch.cuda.get_device_name() if on_gpu else "CPU",
            "load_s": round(load_s, 2),
            "seconds": {
                name: round(float(np.median([s.get(name, 0.0) for s in parts])), 3) for name in parts[0]
            },
            "answer_s": round(typical_s, 3),
            "gpu_peak_memory_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if on_gpu else None,
        },
        [
            report.statistic(
                "videos_and_consensus_s", learned_s, range(rounds), np.median, f"<= {MOST_S:g}", args.seed
            ),
            report.statistic("cancel_max_s", ends, range(cancels), np.max, f"<= {CANCEL_S:g}", args.seed),
        ],
    )


if __name__ == "__main__":
    main()
