# SPDX-License-Identifier: Apache-2.0
"""The numbers of a run as figures, and a few of its pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from pose_bridge.errors import BadInputError
from pose_bridge.evaluation import decisions
from pose_bridge.evaluation.benchmark import Row
from pose_bridge.evaluation.columns import Column, asked, errors_of, of_one_place, of_two_places
from pose_bridge.evaluation.datasets.base import Dataset
from pose_bridge.evaluation.verdicts import rankable, ranking

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN_DEG = (0.05, 180.0)  # of error curves
SIZE_IN, EXAMPLE_IN = (6.4, 4.2), (8.0, 1.8)
STRIP_PX = 240  # high
LEAST_RISK = 5.0  # percent, up to which risk is drawn
DPI = 150
EXAMPLES = 6
MOST_COLUMNS = 5


def draw(
    rows: Sequence[Row], columns: Sequence[Column], numbers: dict[str, Any], dataset: Dataset, folder: Path
) -> dict[str, str]:
    """Draw all figures, and return what each shows, by file.

    Args:
        rows: Of a run, at least one of them of one place.
        columns: Of those of one place.
        numbers: Of `summary`.
        dataset: Where the photographs of the examples are.
        folder: Into which.
    """
    pairs, strangers = of_one_place(rows), of_two_places(rows)
    ranked = {
        one.name: ranking(rankable(one, asked(strangers, one.name)))
        for one in columns
        if one.scores is not None
    }
    plots: dict[str, tuple[str, Callable[[Axes], None]]] = {
        "errors.png": ("Share of the pairs within an error", partial(_draw_errors, columns)),
        "bins.png": (
            "Rotations within 15 degrees, by rotation",
            partial(_draw_bins, numbers["by_rotation_deg"]),
        ),
    }
    if ranked:
        text = "Share of wrong answers, by the share of pairs that are answered"
        plots["risk.png"] = (text, partial(_draw_risk, ranked))
    for file, (_, plot) in plots.items():
        figure = _figure(SIZE_IN)
        plot(figure.subplots())
        figure.savefig(folder / file)
    drawn = {file: text for file, (text, _) in plots.items()}
    shown = _examples(pairs, columns[0])
    figure = _figure((EXAMPLE_IN[0], EXAMPLE_IN[1] * len(shown)))
    for axes, index in zip(figure.subplots(len(shown), 1, squeeze=False)[:, 0], shown, strict=True):
        _draw_example(axes, pairs[index], columns, index, dataset)
    figure.savefig(folder / "examples.png")
    return {**drawn, "examples.png": f"Pairs by the rotation error of {columns[0].name}, least first"}


def _figure(size_in: tuple[float, float]) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size_in, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _examples(rows: Sequence[Row], first: Column) -> list[int]:
    """Pairs from the best to the worst of the first method, those without an answer last."""
    order = np.argsort(first.errors.rotation_deg, kind="stable")
    chosen = np.linspace(0, len(rows) - 1, min(EXAMPLES, len(rows))).round().astype(int)
    return np.asarray(order[chosen]).tolist()


def _draw_example(axes: Axes, row: Row, columns: Sequence[Column], index: int, dataset: Dataset) -> None:
    """The reference, true frames between, and the target, all as high as each other."""
    strip = []
    scene = dataset.scene(row.pair.scene)
    for name in (row.pair.reference, *row.pair.between, row.pair.target):
        try:
            image = scene.frame(name).view().image
        except BadInputError:
            image = np.full((STRIP_PX, STRIP_PX, 3), 128, np.uint8)
        height, width = image.shape[:2]
        strip.append(
            cv2.resize(image, (max(1, width * STRIP_PX // height), STRIP_PX), interpolation=cv2.INTER_AREA)
        )
    axes.imshow(np.hstack(strip))
    axes.set_axis_off()
    said = ", ".join(f"{one.name} {text}" for one, text in zip(columns, _said(columns, index), strict=True))
    axes.set_title(f"{row.pair.id}, {row.pair.rotation_deg:.0f}°: {said}", fontsize=7, loc="left")


def _said(columns: Sequence[Column], index: int) -> Iterator[str]:
    for one in columns:
        yield f"{one.errors.rotation_deg[index]:.1f}° off" if one.answered[index] else "no answer"


def _draw_errors(columns: Sequence[Column], axes: Axes) -> None:
    """Share of all pairs within a rotation error; dotted: of both, the larger error."""
    limits = np.geomspace(*SHOWN_DEG, 400)
    for number, one in enumerate(columns):
        errors = np.nan_to_num(errors_of(one), nan=np.inf)
        for of, style in ((errors[:, 0], "-"), (errors[:, :2].max(axis=1), ":")):
            share = [100.0 * float(np.mean(of <= limit)) for limit in limits]
            label = one.name if style == "-" else None
            axes.plot(limits, share, style, color=f"C{number}", label=label, linewidth=1.6)
    axes.set(xlabel="error, degrees", ylabel="share of all pairs, %", xscale="log")
    axes.set(xlim=SHOWN_DEG, ylim=(0.0, 100.0))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_title("rotation (solid), the larger of rotation and direction (dotted)")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)


def _draw_bins(by_rotation: dict[str, Any], axes: Axes) -> None:
    names = list(next(iter(by_rotation.values()))["methods"])
    width = 0.8 / len(names)
    for number, name in enumerate(names):
        heights = [100.0 * of_bin["methods"][name]["R@15"] for of_bin in by_rotation.values()]
        at = np.arange(len(by_rotation)) + width * (number - (len(names) - 1) / 2)
        axes.bar(at, heights, width, color=f"C{number}", label=name)
    labels = [f"{name}°\n{of_bin['pairs']} pairs" for name, of_bin in by_rotation.items()]
    axes.set_xticks(np.arange(len(by_rotation)), labels)
    axes.set(ylabel="rotation within 15°, % of all pairs", ylim=(0.0, 100.0))
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False)


def _draw_risk(ranked: Mapping[str, decisions.Ranking], axes: Axes) -> None:
    most = LEAST_RISK
    for number, (name, one) in enumerate(ranked.items()):
        coverage, risk = (100.0 * values for values in decisions.risk_coverage(one))
        most = max(most, float(risk.max()))
        axes.step(np.r_[0.0, coverage], np.r_[risk[0], risk], color=f"C{number}", label=name)
        axes.plot(coverage[-1:], risk[-1:], "o", color=f"C{number}", markersize=4)
    axes.set(xlabel="answered, % of all pairs", ylabel="wrong, % of answered")
    axes.set(xlim=(0.0, 100.0), ylim=(-0.02 * most, 1.05 * most))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
