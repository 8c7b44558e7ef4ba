# SPDX-License-Identifier: Apache-2.0
"""The training loop: what is learned, and from what, a recipe says.

A run can be stopped at any time, or killed, and goes on from its last saved state to the same end: what a
step is taught depends on the seed and the step's number alone. `accelerate launch` spreads it over processes.
TensorBoard reads its folder.
"""

from __future__ import annotations

import json
import math
import shutil
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pose_bridge.errors import BadInputError, ConfigError

STATE, EXPORT, RUN = "state", "export", "run.json"
HOPELESS = 20  # steps in a row whose gradient is no number
LOGGED = 50  # steps between two lines of the log


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long, and how fast.

    Attributes:
        steps: Of the optimizer.
        learning_rate: After the warm-up.
        warmup: Steps until then.
        cooldown: Share of the steps at the end in which it falls to nothing.
        weight_decay: Of both optimizers.
        orthogonal: Learning rate of matrices inside blocks by that of all else: their updates are made
            orthogonal (Muon); 0 where AdamW has them too.
        average: Decay of the moving average of the parameters, which is what is validated and kept; less in
            the first steps, so that it is of what was learned and not of the start.
        clip: Norm that no gradient exceeds.
        validate: Steps between two validations.
        save_s: Time between two saved states.
        seed: Of everything random.
    """

    steps: int
    learning_rate: float = 1e-3
    warmup: int = 500
    cooldown: float = 0.25
    weight_decay: float = 0.02
    orthogonal: float = 0.0
    average: float = 0.999
    clip: float = 1.0
    validate: int = 1000
    save_s: float = 300.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.steps > 0 and self.learning_rate > 0.0 and 0.0 <= self.cooldown <= 1.0):
            raise ConfigError("a plan needs steps, a learning rate above 0 and a cooldown of 0 to 1")

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        up = min(1.0, (step + 1) / max(self.warmup, 1))
        down = min(1.0, (self.steps - step) / max(self.cooldown * self.steps, 1.0))
        return self.learning_rate * up * down


class Recipe(Protocol):
    """What is learned."""

    plan: Plan

    def described(self) -> dict[str, Any]:
        """What a state must have been taught by to go on with it."""
        ...

    def module(self) -> nn.Module:
        """Return what learns; called with a batch it returns its losses by name, to be added."""
        ...

    def batch(self, rng: np.random.Generator, device: torch.device) -> Any:
        """Draw what a step is taught."""
        ...

    def validate(self, module: nn.Module) -> dict[str, float]:
        """Measure on what is never taught."""
        ...

    def export(self, module: nn.Module, folder: Path) -> None:
        """Write what is used later, in the published format."""
        ...


@dataclass
class Course:
    """Where a run is; part of its state.

    Attributes:
        step: The next one.
        seconds: So far.
    """

    step: int = 0
    seconds: float = 0.0

    def state_dict(self) -> dict[str, float]:
        """Return it as it is saved."""
        return {"step": self.step, "seconds": self.seconds}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Take it up again."""
        self.step, self.seconds = int(state["step"]), float(state["seconds"])


@dataclass(eq=False)
class Trainer:
    """A run of a recipe.

    Attributes:
        recipe: What is learned.
        folder: For its states, its log and what it exports.
        begin: Folder of another run whose state it begins from, its own being none yet; None for the start.
        stop: Set it, and the run saves its state and ends after the step.
    """

    recipe: Recipe
    folder: Path
    begin: Path | None = None
    stop: bool = False
    course: Course = field(default_factory=Course)

    def __post_init__(self) -> None:
        torch.set_float32_matmul_precision("high")
        set_seed(self.recipe.plan.seed)
        self._accelerator = Accelerator(
            cpu=not torch.cuda.is_available(), log_with="tensorboard", project_dir=self.folder
        )
        plan, module = self.recipe.plan, self.recipe.module()
        self._module, *self._optimizers = self._accelerator.prepare(module, *_optimizers(module, plan))
        self._average = AveragedModel(
            self._accelerator.unwrap_model(self._module), multi_avg_fn=partial(_average, plan.average)
        )
        self._accelerator.register_for_checkpointing(self.course, self._average)
        self._accelerator.init_trackers("log")
        self._odd = 0

    def run(self, minutes: float = math.inf) -> bool:
        """Go on from the last state until the plan is done, the time is up or somebody stops it.

        Returns:
            Whether the plan is done.

        Raises:
            BadInputError: The saved state is of another recipe, or of other footage.
            ConfigError: Gradients are no numbers any more; or the run begins where its plan is done already.
        """
        plan, course = self.recipe.plan, self.course
        self._resume()
        start_s = saved_s = time.monotonic()
        before_s, recent, ends = course.seconds, list[dict[str, Tensor]](), False
        with self._progress() as progress:
            task = progress.add_task("training", total=plan.steps, completed=course.step)
            while course.step < plan.steps and not ends:
                recent.append(self._step())
                now_s = time.monotonic()
                course.seconds = before_s + now_s - start_s
                course.step += 1
                if course.step % LOGGED == 0:
                    self._log(recent, progress, task)
                    recent.clear()
                if course.step % plan.validate == 0 or course.step == plan.steps:
                    self._validate(progress)
                ends = self._anybody(self.stop or now_s - start_s >= 60.0 * minutes)
                if not ends and self._anybody(now_s - saved_s > plan.save_s):
                    self._save()
                    saved_s = time.monotonic()
        self._save()
        self._accelerator.end_training()
        return course.step >= plan.steps

    def _step(self) -> dict[str, Tensor]:
        """Learn once, and return the losses."""
        plan, course, accelerator = self.recipe.plan, self.course, self._accelerator
        rng = np.random.default_rng([plan.seed, course.step, accelerator.process_index])
        for optimizer, factor in zip(self._optimizers, (1.0, plan.orthogonal), strict=False):
            for group in optimizer.param_groups:
                group["lr"] = factor * plan.rate(course.step)
        losses: dict[str, Tensor] = self._module(self.recipe.batch(rng, accelerator.device))
        accelerator.backward(sum(losses.values()))
        norm = accelerator.clip_grad_norm_(self._module.parameters(), plan.clip)
        sound = bool(norm.isfinite())
        if sound:
            for optimizer in self._optimizers:
                optimizer.step()
            self._average.update_parameters(accelerator.unwrap_model(self._module))
        self._odd = 0 if sound else self._odd + 1
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        if self._odd == HOPELESS:
            raise ConfigError(f"{HOPELESS} gradients in a row are no numbers; try a smaller learning rate")
        return {name: value.detach() for name, value in losses.items()} | {"gradient": norm.detach()}

    def _log(self, recent: Sequence[dict[str, Tensor]], progress: Progress, task: TaskID) -> None:
        mean = {name: float(torch.stack([one[name] for one in recent]).mean()) for name in recent[0]}
        text = " ".join(f"{name} {value:.3f}" for name, value in mean.items())
        progress.update(task, completed=self.course.step, description=text)
        self._accelerator.log(mean, step=self.course.step)

    def _validate(self, progress: Progress) -> None:
        if self._accelerator.is_main_process:
            with torch.inference_mode():
                found = self.recipe.validate(self._average.module.eval())
            step = self.course.step
            self._accelerator.log({f"validation/{name}": value for name, value in found.items()}, step=step)
            text = ", ".join(f"{name} {value:.2f}" for name, value in found.items())
            progress.console.print(f"step {step} after {self.course.seconds / 60:.0f} min: {text}")

    def _anybody(self, wishes: bool) -> bool:
        """Whether any of the processes wishes it: all have to do it together."""
        if self._accelerator.num_processes == 1:
            return wishes
        wish = torch.tensor(float(wishes), device=self._accelerator.device)
        return float(self._accelerator.reduce(wish, "sum")) > 0.0

    def _save(self) -> None:
        """Write the state, whole or not at all, and what the average is worth beside it."""
        self._accelerator.save_state(str(self.folder / f"{STATE}.new"))
        self._accelerator.wait_for_everyone()  # until the others' parts are there too
        if self._accelerator.is_main_process:
            (self.folder / f"{STATE}.new" / RUN).write_text(json.dumps(self._described(), indent=1) + "\n")
            _put_in_place(self.folder / STATE)
            shutil.rmtree(self.folder / f"{EXPORT}.new", ignore_errors=True)
            self.recipe.export(self._average.module, self.folder / f"{EXPORT}.new")
            _put_in_place(self.folder / EXPORT)
        self._accelerator.wait_for_everyone()

    def _described(self) -> dict[str, Any]:
        """What a state is of: another number of steps goes on with it, anything else does not."""
        plan = {name: value for name, value in asdict(self.recipe.plan).items() if name != "steps"}
        described = {
            **self.recipe.described(),
            "plan": plan,
            "processes": self._accelerator.num_processes,
        }
        return dict(json.loads(json.dumps(described)))

    def _resume(self) -> None:
        own = _found(self.folder)
        state = own if own is not None or self.begin is None else _found(self.begin)
        if state is None:
            if self.begin is not None:
                raise BadInputError(f"{self.begin} holds no state to begin from")
            return
        try:
            known = json.loads((state / RUN).read_text())
            other = [name for name, value in self._described().items() if known.get(name) != value]
            if other and own is not None:
                raise BadInputError(f"{state} is of another run ({', '.join(other)}); choose another --out")
            self._accelerator.load_state(str(state))
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise BadInputError(
                f"{state} is no state of this recipe ({error}); choose another --out"
            ) from error
        if own is None and self.course.step >= self.recipe.plan.steps:
            raise ConfigError(f"{state} has learned {self.course.step} steps already; give more --steps")

    def _progress(self) -> Progress:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        console = Console(stderr=True, highlight=False, quiet=not self._accelerator.is_main_process)
        return Progress(*columns, console=console, refresh_per_second=1)


def _optimizers(module: nn.Module, plan: Plan) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon for the matrices inside blocks if they are to have it."""
    matrices = [
        layer.weight
        for name, layer in module.named_modules()
        if plan.orthogonal and isinstance(layer, nn.Linear) and "blocks." in name
    ]
    known = {id(parameter) for parameter in matrices}
    others = [parameter for parameter in module.parameters() if id(parameter) not in known]
    common = {"lr": plan.learning_rate, "weight_decay": plan.weight_decay}
    found: list[torch.optim.Optimizer] = [torch.optim.AdamW(others, betas=(0.9, 0.95), **common)]
    if matrices:
        found.append(torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw", **common))
    return found


@torch.no_grad()
def _average(decay: float, kept: list[Tensor], now: list[Tensor], count: Tensor) -> None:
    """Update the moving average of parameters after so many updates."""
    warmed = min(decay, (1.0 + float(count)) / (10.0 + float(count)))
    get_ema_multi_avg_fn(warmed)(kept, now, count)


@contextmanager
def coarse(device: torch.device) -> Iterator[None]:
    """Products in bfloat16 where the hardware has it: for a network's blocks, not for its losses."""
    if device.type == "cuda":
        known = torch.cuda.is_bf16_supported()
        attention = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    else:  # the fused attention of processors takes longer backwards in bfloat16 than in float32
        known = bool(torch.cpu.get_capabilities().get("avx512_bf16"))
        attention = [SDPBackend.MATH] if known else [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]
    products = torch.autocast(device.type, torch.bfloat16, enabled=known)
    with products, sdpa_kernel(attention), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")  # slower norms
        yield


def _put_in_place(folder: Path) -> None:
    """Give `folder`.new its name; at any moment one of the names holds all of it."""
    new, old = folder.with_name(f"{folder.name}.new"), folder.with_name(f"{folder.name}.old")
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _found(folder: Path) -> Path | None:
    """The last whole state of a run, also where it was killed between two names."""
    return next((path for name in (STATE, f"{STATE}.old") if (path := folder / name).is_dir()), None)
