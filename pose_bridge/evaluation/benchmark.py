# SPDX-License-Identifier: Apache-2.0
"""Asking methods about every pair of a list, in one process or several, and going on after a kill.

A folder holds run.json, which says what was asked, and a line for each pair in answers-<process>.jsonl. What
a kill left of a line is asked again; no pair is asked twice, however many processes go on with it, unless its
photographs could not be read.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from pose_bridge import models, verification
from pose_bridge.config import Config
from pose_bridge.errors import BadInputError
from pose_bridge.estimators.base import Array
from pose_bridge.evaluation.datasets.base import Dataset, Scene
from pose_bridge.evaluation.datasets.pairs import Pair, PairList, pair_of, turn_deg
from pose_bridge.evaluation.methods import Panel, Said
from pose_bridge.evaluation.metrics import Estimated

log = logging.getLogger(__name__)

RUN = "run.json"
SCENES_KEPT = 4
REDRAWN_DEG = 0.01


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is asked; answers to anything else do not belong into its folder.

    Attributes:
        dataset: `layout:folder` that the photographs come from.
        pairs: Hash of the list.
        methods: In the order of the columns.
        settings: Hash of the configuration, and of what was learned: the networks that it names, and how
            evidence is judged.
        seed: Of what is random.
        odometry: Whether views of a side know how they lie to each other.
    """

    dataset: str
    pairs: str
    methods: tuple[str, ...]
    settings: str
    seed: int
    odometry: bool = False

    @classmethod
    def of(
        cls,
        dataset: str,
        pairs: PairList,
        methods: Sequence[str],
        config: Config,
        seed: int,
        *,
        odometry: bool = False,
    ) -> Run:
        """Describe a run by what it asks."""
        hashed = _hash([dataclasses.asdict(pair) for pair in pairs.pairs])
        named = [models.folder_of(name) for name in (config.vggt.weights, config.ltx.weights) if name]
        settings = _hash(
            [dataclasses.asdict(config), models.fingerprint(named), verification.MODEL_FILE.read_text()]
        )
        return cls(
            dataset=dataset,
            pairs=hashed,
            methods=tuple(methods),
            settings=settings,
            seed=seed,
            odometry=odometry,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """What was said about one pair.

    Attributes:
        pair: Which.
        T_reference_target: The truth, (4, 4); None where the target is of another place.
        said: By method; empty if the pair could not be asked about.
        error: Why not.
    """

    pair: Pair
    T_reference_target: Array | None
    said: dict[str, Said]
    error: str = ""

    def estimated(self, method: str) -> Estimated | None:
        """Return a method's answer, None where it has none."""
        said = self.said.get(method)
        if said is None or said.T_reference_target is None:
            return None
        return Estimated(said.T_reference_target, directed=said.directed, metric=said.metric)


def begin(folder: Path, run: Run) -> None:
    """Open a folder for a run, or go on with it.

    Raises:
        BadInputError: Something else was asked in it, or nobody knows what, or it cannot be written to.
    """
    path, mine = folder / RUN, dataclasses.asdict(run)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists() and any(folder.glob("answers-*.jsonl")):
            raise BadInputError(
                f"{folder} holds answers, but no {RUN} that says to what; choose another --out"
            )
        with path.open("x") as file:
            json.dump(mine, file, indent=1)
    except FileExistsError:
        other = _kept_run(path)
        different = [name for name, value in mine.items() if other.get(name) != json.loads(json.dumps(value))]
        if different:
            raise BadInputError(
                f"{folder} holds answers to something else ({', '.join(different)}); choose another --out"
            ) from None
    except OSError as error:
        raise BadInputError(f"{folder} cannot be written to: {error}") from error


def answer(
    dataset: Dataset,
    pairs: PairList,
    panel: Panel,
    folder: Path,
    seed: int,
    share: tuple[int, int] = (0, 1),
) -> Iterator[Row]:
    """Ask about the pairs that were not asked about yet, and write each down before it is yielded.

    Args:
        dataset: Where the photographs are.
        pairs: All of them.
        panel: Who is asked.
        folder: Begun.
        seed: Of what is random.
        share: Which process of how many this is: it asks about each so manieth pair.

    Raises:
        BadInputError: A scene cannot be read, or is another one than when the pairs were drawn, or another
            process writes there; a photograph that cannot be used is an answer that is missing.
    """
    scene = lru_cache(SCENES_KEPT)(dataset.scene)
    own = folder / f"answers-{share[0]}.jsonl"
    with own.open("a") as file:
        _claim(file, own)
        _mend(own)
        for pair in waiting(pairs, folder, share):
            here = scene(pair.scene)
            there = here if pair.target_scene is None else scene(pair.target_scene)
            T_true = _truth(here, pair) if there is here else None
            try:
                said, error = panel.ask(panel.read(here, there, pair, seed)), ""
            except BadInputError as bad:
                said, error = {}, str(bad)
                log.warning("%s: %s", pair.id, bad)
            row = Row(pair=pair, T_reference_target=T_true, said=said, error=error)
            file.write(f"{json.dumps(_record(row))}\n")
            file.flush()
            os.fsync(file.fileno())
            yield row


def _truth(scene: Scene, pair: Pair) -> Array:
    """T_reference_target, (4, 4).

    Raises:
        BadInputError: It is another one than when the pair was drawn.
    """
    found_deg = turn_deg(scene.frame(pair.reference), scene.frame(pair.target))
    if pair.rotation_deg is not None and abs(found_deg - pair.rotation_deg) > REDRAWN_DEG:
        raise BadInputError(f"{pair.id}: its poses are not those it was drawn by; draw the pairs anew")
    return scene.T_reference_target(pair.reference, pair.target)


def waiting(pairs: PairList, folder: Path, share: tuple[int, int] = (0, 1)) -> list[Pair]:
    """Return a process's share of the pairs without an answer, scene by scene."""
    known = {row.pair.id for row in rows(folder) if not row.error}
    own = sorted(pairs.pairs, key=lambda pair: pair.scene)[share[0] :: share[1]]
    return [pair for pair in own if pair.id not in known]


def rows(folder: Path) -> list[Row]:
    """Return what is known, each pair once; a line that was cut off is none.

    Raises:
        BadInputError: A file holds something else.
    """
    found: dict[str, Row] = {}
    for path in sorted(folder.glob("answers-*.jsonl")):
        whole, _, _ = path.read_text().rpartition("\n")
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                row = _row(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise BadInputError(f"{path}, line {number}: no answer ({error}); remove the line") from error
            if row.pair.id not in found or found[row.pair.id].error:
                found[row.pair.id] = row
    return list(found.values())


def _claim(file: TextIO, path: Path) -> None:
    """Make sure that nobody else writes there, until the file is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise BadInputError(f"{path}: another process writes there; wait, or choose another --out") from error


def _mend(path: Path) -> None:
    """Cut off what a kill left of a line, so that the next one begins anew."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as file:
            file.truncate(whole)


def _record(row: Row) -> dict[str, Any]:
    said = {
        name: {
            **dataclasses.asdict(one),
            "T_reference_target": None if one.T_reference_target is None else one.T_reference_target.tolist(),
        }
        for name, one in row.said.items()
    }
    return {
        "pair": dataclasses.asdict(row.pair),
        "T_reference_target": None if row.T_reference_target is None else row.T_reference_target.tolist(),
        "said": said,
        "error": row.error,
    }


def _row(record: dict[str, Any]) -> Row:
    said, T_true = {}, record["T_reference_target"]
    for name, one in record["said"].items():
        T = one.pop("T_reference_target")
        said[name] = Said(None if T is None else np.array(T), **one)
    return Row(
        pair=pair_of(record["pair"]),
        T_reference_target=None if T_true is None else np.array(T_true),
        said=said,
        error=record["error"],
    )


def _kept_run(path: Path) -> dict[str, Any]:
    try:
        kept: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path}: {error}; choose another --out") from error
    return kept


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
