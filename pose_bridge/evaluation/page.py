# SPDX-License-Identifier: Apache-2.0
"""The numbers of a run as a page of Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pose_bridge.evaluation.summary import ERRORS, STATISTICS
from pose_bridge.evaluation.verdicts import AREA_UNDER_RISK, CALIBRATION

PERCENT, NONE = 100.0, "–"
MOST_REASONS = 6
PLAIN = {*ERRORS, AREA_UNDER_RISK, CALIBRATION}  # numbers that are no shares


def of(numbers: dict[str, Any], drawn: dict[str, str]) -> str:
    """Return the page.

    Args:
        numbers: Of `summary`.
        drawn: What figures show, by file.
    """
    numbered = (_head, _methods, _no_answer, _differences, _by_rotation, _by_gap, _by_kind)
    decided = (_decisions, _other_places, _hypotheses)
    parts = [section(numbers) for section in (*numbered, *decided)]
    parts += [[f"![{text}]({file})"] for file, text in drawn.items()]
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


def _head(numbers: dict[str, Any]) -> list[str]:
    unreadable = f", {numbers['unreadable']} of them unreadable" if numbers["unreadable"] else ""
    other = f", and {numbers['elsewhere']} pairs of two places" if numbers["elsewhere"] else ""
    return [
        "# Evaluation",
        "",
        f"{numbers['pairs']} pairs, {numbers['scenes']} scenes{other}{unreadable}. Errors in degrees, of",
        "directions with their sign unless said; shares and areas in percent; 95 % intervals by",
        f"{numbers['drawn_by']}. Pairs without an answer are within no limit and in every denominator; means",
        "are over answers.",
    ]


def _methods(numbers: dict[str, Any]) -> list[str]:
    methods: dict[str, Any] = numbers["methods"]
    rows = {name: [str(one[name]) for one in methods.values()] for name in ("answered", "right")}
    rows |= {name: [_number(one[name], name) for one in methods.values()] for name in STATISTICS}
    rows["median seconds"] = [_plain(one["median seconds"]) for one in methods.values()]
    return _table(["", *methods], rows)


def _no_answer(numbers: dict[str, Any]) -> list[str]:
    """Why not, the most frequent reasons first."""
    lines = []
    for name, reasons in numbers["no_answer"].items():
        if reasons:
            said = [f"{text} ({count})" for text, count in list(reasons.items())[:MOST_REASONS]]
            others = sum(list(reasons.values())[MOST_REASONS:])
            lines.append(f"- {name}: {', '.join(said)}{f'; for other reasons {others}' if others else ''}")
    return ["## Without an answer", "", *lines] if lines else []


def _differences(numbers: dict[str, Any]) -> list[str]:
    others: dict[str, Any] = numbers["differences"]
    if not others:
        return []
    first = next(iter(numbers["methods"]))
    rows = {name: [_number(one.get(name), name, "+") for one in others.values()] for name in STATISTICS}
    text = "Pair by pair: errors where both answered, shares and areas of all pairs."
    return [f"## Less {first}", "", text, "", *_table(["", *others], rows)]


def _by_rotation(numbers: dict[str, Any]) -> list[str]:
    return _by_part("rotation", "by_rotation_deg", "°", numbers)


def _by_gap(numbers: dict[str, Any]) -> list[str]:
    return _by_part("rotation and gap between the sides", "by_gap_deg", "°", numbers)


def _by_kind(numbers: dict[str, Any]) -> list[str]:
    return _by_part("kind of walk", "by_kind", "", numbers)


def _by_part(by: str, key: str, unit: str, numbers: dict[str, Any]) -> list[str]:
    if not numbers[key]:
        return []
    rows = {
        f"{name}{unit} (pairs: {one['pairs']})": [_of_bin(said) for said in one["methods"].values()]
        for name, one in numbers[key].items()
    }
    text = "Mean rotation error, and how many of the answers are correct."
    return [f"## By {by}", "", text, "", *_table([by, *numbers["methods"]], rows)]


def _of_bin(said: dict[str, Any]) -> str:
    if not said["answered"]:
        return NONE
    return f"{said['mean rotation error']:.1f}°, {said['right']} of {said['answered']}"


def _decisions(numbers: dict[str, Any]) -> list[str]:
    found: dict[str, Any] = numbers["decisions"]
    if not found:
        return []
    rows = {name: [_plain(one[name]) for one in found.values()] for name in ("accepted", "wrong")}
    rows["of all pairs, answered"] = [_plain(PERCENT * one["coverage"]) for one in found.values()]
    named = dict.fromkeys(
        name for one in found.values() for name, value in one.items() if isinstance(value, dict)
    )
    rows |= {name: [_number(one.get(name), name) for one in found.values()] for name in named}
    text = "Of all pairs; to those of two places every answer is wrong, and none of them counts in a recall."
    return ["## Accepting and rejecting", "", text, "", *_table(["", *found], rows)]


def _other_places(numbers: dict[str, Any]) -> list[str]:
    found = {name: one for name, one in numbers["other_places"].items() if one}
    if not found:
        return []
    counts = ("pairs", "accepted", "places", "places with one", "hypotheses")
    shares = ("share accepted", "share of places with one", "recall", "recall at 0.1 %")
    rows = {name: [_plain(one[name]) for one in found.values()] for name in counts}
    rows |= {name: [_number(one.get(name), name) for one in found.values()] for name in shares}
    for kind in next(iter(found.values()))["accepted by kind"]:
        pairs = [one["accepted by kind"].get(kind, [0, 0]) for one in found.values()]
        rows[f"accepted, {kind}"] = [f"{accepted} of {asked}" for accepted, asked in pairs]
    text = (
        "Pairs whose target is of another place. Recall: of the pairs of one place, at the threshold of the "
        "settings, and at the one, not below it, that accepts at most 0.1 % of these, if there are 1000."
    )
    return ["## Targets of other places", "", text, "", *_table(["", *found], rows)]


def _hypotheses(numbers: dict[str, Any]) -> list[str]:
    found: dict[str, Any] = numbers["hypotheses"]
    if not found:
        return []
    counts = ("guesses", "right guesses", "promotable", "promoted", "wrongly promoted")
    shares = ("share promoted", "share wrongly promoted")
    rows = {name: [_plain(one[name]) for one in found.values()] for name in counts}
    for name in ("promotable", "guesses", "promoted"):
        rows[f"of two places, {name}"] = [_plain(one["of two places"][name]) for one in found.values()]
    rows |= {name: [_number(one[name], name) for one in found.values()] for name in shares}
    text = (
        "Guesses, and those that agreement of others made an answer; promotable are pairs with enough posed "
        "views for that. Shares: of the promotable pairs of one place, and of all that were promoted."
    )
    return ["## Hypotheses", "", text, "", *_table(["", *found], rows)]


def _table(head: Sequence[str], rows: dict[str, list[str]]) -> list[str]:
    lines = [" | ".join(head), "|".join(["---"] * len(head))]
    lines += [" | ".join([name, *cells]) for name, cells in rows.items()]
    return [f"| {line} |" for line in lines]


def _number(number: dict[str, Any] | None, name: str, sign: str = "") -> str:
    if number is None or math.isnan(number["value"]):
        return NONE
    factor, digits = (1.0, 2) if name in PLAIN else (PERCENT, 1)
    value, low, high = (factor * v for v in (number["value"], *number["interval95"]))
    known = "" if math.isnan(low) else f" ({low:.{digits}f} to {high:.{digits}f})"
    return f"{value:{sign}.{digits}f}{known}"


def _plain(value: float | None) -> str:
    if value is None or math.isnan(value):
        return NONE
    return str(value) if isinstance(value, int) else f"{value:.3g}"
