# SPDX-License-Identifier: Apache-2.0
"""The loop: stopped, killed or spread over processes, a run comes to the same end."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pose_bridge.errors import BadInputError, ConfigError
from pose_bridge.training.train import STATE, Plan, Trainer


class Sums(NamedTuple):
    """Numbers, and what they add up to."""

    numbers: Tensor
    sum: Tensor


class Adder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, 1)

    def forward(self, batch: Sums) -> dict[str, Tensor]:
        said = self.layer(batch.numbers)[:, 0]
        return {"squared": (said - batch.sum).square().mean(), "size": 1e-6 * self.layer.weight.abs().sum()}


class Deep(Adder):
    """Adds what a block makes of the numbers."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.blocks = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, batch: Sums) -> dict[str, Tensor]:
        return super().forward(batch._replace(numbers=self.blocks[0](batch.numbers)))


class Adding:
    """Learns to add; `spoilt` are steps whose numbers are none."""

    def __init__(
        self,
        steps: int = 60,
        width: int = 4,
        spoilt: range = range(0),
        name: str = "adding",
        save_s: float = 1e9,
        orthogonal: float = 0.0,
    ) -> None:
        self.plan = Plan(
            steps=steps,
            learning_rate=0.05,
            warmup=5,
            average=0.9,
            validate=20,
            save_s=save_s,
            orthogonal=orthogonal,
        )
        self.name = name
        self.asked: list[int] = []
        self._width, self._spoilt = width, spoilt

    def described(self) -> dict[str, object]:
        return {"recipe": self.name}

    def module(self) -> nn.Module:
        return (Deep if self.plan.orthogonal else Adder)(self._width)

    def batch(self, rng: np.random.Generator, device: torch.device) -> Sums:
        numbers = torch.from_numpy(rng.normal(size=(16, self._width))).float()
        number = len(self.asked)
        self.asked.append(number)
        if number in self._spoilt:
            numbers = numbers * math.nan
        return Sums(numbers, numbers.sum(dim=1))

    def validate(self, module: nn.Module) -> dict[str, float]:
        return {"off": (module.layer.weight - 1.0).abs().max().item()}

    def export(self, module: nn.Module, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(module.state_dict(), folder / "adder.pt")


def learned(folder: Path) -> dict[str, Tensor]:
    """What it learned, and the average of it that is kept."""
    kept = torch.load(folder / "export" / "adder.pt")
    return load_file(folder / STATE / "model.safetensors") | {f"kept {n}": one for n, one in kept.items()}


def test_it_learns_and_keeps_the_average(tmp_path: Path) -> None:
    trainer = Trainer(Adding(), tmp_path)
    assert trainer.run()
    assert trainer.course.step == 60
    found = learned(tmp_path)
    assert (found["kept layer.weight"] - 1.0).abs().max() < 0.3
    assert not torch.equal(found["kept layer.weight"], found["layer.weight"])
    assert any((tmp_path / "log").glob("events*"))


def test_the_average_leaves_the_start_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decay of 0.9 after all, less in the first steps: worked out beside it."""
    trainer, kept = Trainer(Adding(steps=40), tmp_path), None
    step = trainer._step

    def followed() -> dict[str, Tensor]:
        nonlocal kept
        losses = step()
        now = trainer._module.layer.weight.detach().clone()
        count = trainer.course.step
        decay = min(0.9, (1 + count) / (10 + count))
        kept = now if kept is None else decay * kept + (1.0 - decay) * now
        return losses

    monkeypatch.setattr(trainer, "_step", followed)
    trainer.run()
    torch.testing.assert_close(learned(tmp_path)["kept layer.weight"], kept)


@pytest.mark.parametrize("orthogonal", [0.0, 2.0])
def test_stopped_it_goes_on_to_the_same_end(tmp_path: Path, orthogonal: float) -> None:
    Trainer(Adding(orthogonal=orthogonal), tmp_path / "whole").run()
    first = Trainer(Adding(orthogonal=orthogonal), tmp_path / "parts")
    first.recipe.batch = stopping(first, 23)
    assert not first.run()
    assert first.course.step == 23
    second = Trainer(Adding(orthogonal=orthogonal), tmp_path / "parts")
    assert second.run()
    assert len(second.recipe.asked) == 60 - 23
    whole, parts = learned(tmp_path / "whole"), learned(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, parts[name]), name


def test_matrices_inside_blocks_learn_by_orthogonal_steps(tmp_path: Path) -> None:
    """As long as AdamW's in the mean, whatever the gradient, at a rate of their own; all else by AdamW."""
    trainer = Trainer(Adding(steps=1, orthogonal=2.0), tmp_path)
    before = {name: value.clone() for name, value in trainer._module.state_dict().items()}
    trainer.run()
    moved = {name: value - before[name] for name, value in trainer._module.state_dict().items()}
    rate = trainer.recipe.plan.rate(0)
    furthest = torch.linalg.matrix_norm(moved["blocks.0.weight"], 2)
    assert furthest == pytest.approx(2.0 * rate * 0.2 * 4**0.5, rel=0.35)
    for name in ("blocks.0.bias", "layer.weight", "layer.bias"):
        torch.testing.assert_close(moved[name].abs(), torch.full_like(moved[name], rate), rtol=0.1, atol=0.0)


def stopping(trainer: Trainer, after: int):
    """The recipe's batches, and a stop with the last of so many."""
    batch = trainer.recipe.batch

    def drawn(rng: np.random.Generator, device: torch.device) -> Sums:
        trainer.stop = len(trainer.recipe.asked) == after - 1
        return batch(rng, device)

    return drawn


def test_killed_between_two_names_it_takes_the_older_state(tmp_path: Path) -> None:
    first = Trainer(Adding(), tmp_path)
    first.recipe.batch = stopping(first, 10)
    first.run()
    (tmp_path / STATE).rename(tmp_path / f"{STATE}.old")
    second = Trainer(Adding(), tmp_path)
    second.run()
    assert len(second.recipe.asked) == 50


def test_time_is_up(tmp_path: Path) -> None:
    trainer = Trainer(Adding(steps=10**6), tmp_path)
    assert not trainer.run(minutes=0.02)
    assert 0 < trainer.course.step < 10**6


def test_a_done_run_does_nothing_more(tmp_path: Path) -> None:
    Trainer(Adding(), tmp_path).run()
    again = Trainer(Adding(), tmp_path)
    assert again.run()
    assert again.recipe.asked == []


def test_a_spoilt_batch_teaches_nothing_and_many_end_it(tmp_path: Path) -> None:
    trainer = Trainer(Adding(spoilt=range(10, 13)), tmp_path / "few")
    assert trainer.run()
    assert all(tensor.isfinite().all() for tensor in learned(tmp_path / "few").values())
    with pytest.raises(ConfigError, match="learning rate"):
        Trainer(Adding(spoilt=range(10, 60)), tmp_path / "many").run()


def test_the_state_of_something_else_is_refused(tmp_path: Path) -> None:
    Trainer(Adding(), tmp_path).run()
    with pytest.raises(BadInputError, match="another --out"):
        Trainer(Adding(steps=100, width=5), tmp_path).run()
    with pytest.raises(BadInputError, match=r"another run \(recipe\)"):
        Trainer(Adding(steps=100, name="subtracting"), tmp_path).run()
    with pytest.raises(BadInputError, match=r"another run \(plan\)"):
        Trainer(Adding(steps=100, save_s=5.0), tmp_path).run()


def test_a_run_begins_from_another_ones_state(tmp_path: Path) -> None:
    """Told to, with another recipe even; once it has a state of its own, that counts."""
    Trainer(Adding(), tmp_path / "first").run()
    second = Trainer(Adding(steps=70, name="more"), tmp_path / "second", tmp_path / "first")
    assert second.run()
    assert len(second.recipe.asked) == 10
    assert Trainer(Adding(steps=70, name="more"), tmp_path / "second", tmp_path / "first").run()
    with pytest.raises(ConfigError, match="60 steps already"):
        Trainer(Adding(name="more"), tmp_path / "third", tmp_path / "first").run()
    assert not (tmp_path / "third" / "export").exists()
    with pytest.raises(BadInputError, match="no state to begin from"):
        Trainer(Adding(), tmp_path / "third", tmp_path / "nowhere").run()


def test_a_state_is_always_there_once_it_was(tmp_path: Path) -> None:
    """Killed after any step of putting a new one in its place, there is a whole one."""
    trainer = Trainer(Adding(), tmp_path)
    trainer.run()
    for left in ((STATE, f"{STATE}.new"), (f"{STATE}.old", f"{STATE}.new")):
        folder = tmp_path / "-".join(left)
        folder.mkdir()
        for name in left:
            shutil.copytree(tmp_path / STATE, folder / name)
        again = Trainer(Adding(steps=61), folder)
        assert again.run()
        assert len(again.recipe.asked) == 1
        assert [path.name for path in folder.glob(f"{STATE}*")] == [STATE]


def test_the_learning_rate_rises_stays_and_falls() -> None:
    plan = Plan(steps=100, learning_rate=1.0, warmup=10, cooldown=0.25)
    rates = [plan.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert set(rates[9:76]) == {1.0}
    assert rates[99] == pytest.approx(0.04)
    assert rates[76:] == sorted(rates[76:], reverse=True)


@pytest.mark.parametrize("given", [{"steps": 0}, {"learning_rate": 0.0}, {"cooldown": 1.5}])
def test_plans_that_cannot_be(given: dict) -> None:
    with pytest.raises(ConfigError):
        Plan(**{"steps": 10, **given})


# --- the command


def command(footage_folder: Path, out: Path, *more: str) -> list[str]:
    arguments = ["vggt-mini", "--footage", str(footage_folder), "--out", str(out), *more]
    return [sys.executable, "-m", "pose_bridge.training", *arguments]


def parameters(out: Path) -> dict[str, Tensor]:
    return load_file(out / "export" / "model.safetensors")


@pytest.mark.timeout(200)
def test_a_signal_stops_it_and_it_goes_on(footage_folder: Path, tmp_path: Path) -> None:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(
        command(footage_folder, tmp_path, "--steps", "100000"), env=env, stdout=subprocess.PIPE, text=True
    )
    try:
        wait_for(lambda: any((tmp_path / "log").glob("*")), running)
        time.sleep(3.0)
        running.send_signal(signal.SIGTERM)
        said, _ = running.communicate(timeout=60)
    finally:
        running.kill()
        running.wait()
    assert running.returncode == 0
    assert said.startswith("stopped at step ")
    step = int(said.split()[3].rstrip(";"))
    assert parameters(tmp_path)
    again = command(footage_folder, tmp_path, "--steps", "100000", "--minutes", "0.01")
    later = subprocess.run(again, env=env, capture_output=True, text=True, timeout=100)
    assert later.stdout.startswith("stopped at step "), later.stderr
    assert 0 < int(later.stdout.split()[3].rstrip(";")) - step < 20


def wait_for(ready, running: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60.0
    while not ready():
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.timeout(200)
def test_two_processes_learn_together(footage_folder: Path, tmp_path: Path) -> None:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
        "-m",
    ]
    arguments = command(footage_folder, tmp_path, "--steps", "100000", "--minutes", "0.05")[2:]
    done = subprocess.run([*launch, *arguments], env=env, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr[-3000:]  # both stopped at one step, though their clocks differ
    assert len(list((tmp_path / STATE).glob("random_states_*"))) == 2
    assert all(tensor.isfinite().all() for tensor in parameters(tmp_path).values())


def test_without_footage_it_says_how_to_make_some(tmp_path: Path) -> None:
    done = subprocess.run(command(tmp_path, tmp_path / "out"), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "pose_bridge.training.footage" in done.stderr
    assert "Traceback" not in done.stderr
