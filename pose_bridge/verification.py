# SPDX-License-Identifier: Apache-2.0
"""What ties the two sides together, and how far to believe it.

An estimate is judged on the tracks across the weakest cut between the reference and the target, not on how
well each side fits itself: a repeated wallpaper flower links two sides with hundreds of consistent tracks.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow
from scipy.spatial.distance import pdist

from pose_bridge.config import Config, VerificationConfig
from pose_bridge.control import Control
from pose_bridge.errors import NoEstimateError
from pose_bridge.estimators.base import Array, Estimate, Estimator, Indices, Problem
from pose_bridge.geometry import distances, epipolar, rigid, uncertainty
from pose_bridge.views import Evidence, Question, Reason

AGREE_PX = 3.0  # a match this near to its epipolar line agrees with the estimate
CELL_DEG = 3.0  # tracks in one cell of this size count as one patch
LARGE_CELL_DEG, ENOUGH = 15.0, 5  # tracks in one such cell say the same thing more than so many times
SAME_ROTATION_DEG = 3.0  # a rival nearer than this is the same answer
SAME_DIRECTION_DEG = 8.0
RIVAL_CAP = 1.0  # a rival this much stronger (logarithm) is as strong as it gets
DENIAL_WEIGHT = 3  # pictures that confirm an answer, for one that denies it
STRONG_RIVAL = 0.6  # of the answer's own patches
LOW_AGREEMENT = 0.4
FLAT_M, FLAT_SHARE = 0.05, 0.95  # so many points no farther than that from a plane are of something flat
PLANE_FITS = 10
MANY_POINTS = 1000  # of more, some stand for all where every pair is looked at
MODEL_FILE = Path(__file__).with_name("verification_model.json")


@dataclass(frozen=True, eq=False)
class Cut:
    """The weakest cut between the reference and the target.

    Attributes:
        target_side: Whether each view of the problem lies on the target's side; views that took no part do
            not.
        points: Indices of the estimate's points that are seen on both sides.
    """

    target_side: NDArray[np.bool_]
    points: Indices


def weakest_cut(estimate: Estimate, sides: Sequence[int]) -> Cut:
    """Find the fewest tracks whose loss would part the reference from the target (max-flow, min-cut).

    A track carries one unit, whatever the number of views that see it. Where odometry holds the sides
    together, the cut is between them.

    Args:
        estimate: Its tracks.
        sides: Of each view of the problem, 0 or 1.
    """
    views = len(sides)
    seen = estimate.tracks.visible(views) >= 0
    takes_part = np.isin(np.arange(views), list(estimate.T_reference_camera))
    if estimate.rigid_sides:
        return _cut(seen, np.asarray(sides) == 1, takes_part)
    points = len(seen)
    point, view = np.nonzero(seen)
    entry, leave, node = point, points + point, 2 * points + view
    plenty = np.full(len(point), points + 1)
    rows = np.concatenate([node, np.arange(points), leave])
    columns = np.concatenate([entry, points + np.arange(points), node])
    capacity = np.concatenate([plenty, np.ones(points, int), plenty]).astype(np.int32)
    size = 2 * points + views
    network = csr_array((capacity, (rows, columns)), shape=(size, size))
    flow = maximum_flow(network, 2 * points, 2 * points + 1).flow
    left_over = csr_array(network - flow)
    left_over.eliminate_zeros()
    reached = np.zeros(size, bool)
    reached[breadth_first_order(left_over, 2 * points, return_predecessors=False)] = True
    return _cut(seen, ~reached[2 * points :], takes_part)


def _cut(seen: NDArray[np.bool_], beyond: NDArray[np.bool_], takes_part: NDArray[np.bool_]) -> Cut:
    target_side, reference_side = beyond & takes_part, ~beyond & takes_part
    linking = seen[:, target_side].any(axis=1) & seen[:, reference_side].any(axis=1)
    return Cut(target_side, np.nonzero(linking)[0])


def gather(problem: Problem, estimate: Estimate) -> Evidence:
    """Measure what ties the two sides of an estimate together."""
    cut = weakest_cut(estimate, problem.sides)
    visible = estimate.tracks.visible(len(problem.views))[cut.points] >= 0
    reference_view, target_view = _best_views(cut, visible)
    agreeing, total = _agreement(problem, estimate, cut)
    features = {
        "log_tracks": float(np.log(max(len(cut.points), 1))),
        "log_patches": float(np.log(max(1, min(_patches(estimate, cut.points, end) for end in (0, 1))))),
        "log_support": float(np.log(max(1, min(_support(estimate, cut.points, end) for end in (0, 1))))),
        "agreement": agreeing / max(total, 1),
        "log_rotation_sigma_deg": float(np.log(max(rotation_sigma_deg(estimate), 1e-3))),
        "rival_patches": 0.0,
        "log_pairs": float(
            np.log(max(1, sum(problem.sides[a] != problem.sides[b] for a, b in problem.matches)))
        ),
        "parallax_deg": _parallax_deg(estimate, cut, visible),
    }
    both = cut.points[visible[:, reference_view] & visible[:, target_view]]
    keypoints = estimate.tracks.visible(len(problem.views))[both]
    return Evidence(
        tracks=len(cut.points),
        features=features,
        reference_view_id=problem.views[reference_view].id,
        target_view_id=problem.views[target_view].id,
        reference_points_px=problem.features[reference_view].points_px[keypoints[:, reference_view]],
        target_points_px=problem.features[target_view].points_px[keypoints[:, target_view]],
        points=estimate.points[cut.points],
    )


def without_links(problem: Problem, estimate: Estimate) -> Problem:
    """Return the problem without the matches across the weakest cut that agree with the estimate.

    What another alignment of the two sides would rest on is left.
    """
    cut = weakest_cut(estimate, problem.sides)
    tied = estimate.tracks.visible(len(problem.views))[cut.points]
    matches = dict(problem.matches)
    for (a, b), pairs in problem.matches.items():
        if cut.target_side[a] == cut.target_side[b] or not {a, b} <= set(estimate.T_reference_camera):
            continue
        used = np.isin(pairs[:, 0], tied[:, a]) | np.isin(pairs[:, 1], tied[:, b])
        matches[a, b] = pairs[~used & ~_agrees(problem, estimate, a, b, pairs)]
    return dataclasses.replace(problem, matches=matches)


def candidates(
    estimator: Estimator, problem: Problem, control: Control, alternatives: int, needed: float = 0.0
) -> list[tuple[Estimate, Evidence]]:
    """Estimate, take away what ties the two sides, and estimate again: rival alignments of the two sides.

    Args:
        estimator: Of the rung.
        problem: Its views and matches.
        control: Budget and cancellation.
        alternatives: Rivals to look for.
        needed: An estimate less probable than this even without rivals is not worth looking for any.

    Returns:
        Estimates as they were found, each with its evidence, in which the others that disagree are its
        rivals.

    Raises:
        NoEstimateError: Not even the first estimate was found.
        CancelledError, BudgetSpentError: From `control`.
    """
    found = [estimator.estimate(problem, control)]
    evidence = [gather(problem, found[0])]
    hopeless = needed > 0.0 and probability(evidence[0], estimator.name) < needed
    rest = problem
    for _ in range(0 if hopeless else 2 * alternatives):  # the same answer once more is no rival
        if sum(not same_answer(found[0], other) for other in found) == alternatives:
            break
        control.step(f"{estimator.stage.name.lower()}: looking for another alignment")
        rest = without_links(rest, found[-1])
        try:
            found.append(estimator.estimate(rest, control))
        except NoEstimateError:
            break
        evidence.append(gather(problem, found[-1]))  # by all matches, also those taken away
    return [
        (
            estimate,
            _with_rivals(
                own, [e for other, e in zip(found, evidence, strict=True) if not same_answer(estimate, other)]
            ),
        )
        for estimate, own in zip(found, evidence, strict=True)
    ]


def _with_rivals(evidence: Evidence, rivals: Sequence[Evidence]) -> Evidence:
    """Return the evidence with what speaks for other alignments, relative to what speaks for this one."""
    strongest = max((rival.features["log_patches"] for rival in rivals), default=-np.inf)
    relative = float(np.exp(min(RIVAL_CAP, strongest - evidence.features["log_patches"])))
    return dataclasses.replace(evidence, features={**evidence.features, "rival_patches": relative})


def same_answer(a: Estimate, b: Estimate) -> bool:
    """Whether two estimates of one question agree, as far as both know."""
    known = _knows_direction(a) and _knows_direction(b)
    return same_pose(a.T_reference_target, b.T_reference_target, known)


def same_pose(
    T_a: Array,
    T_b: Array,
    directions: bool,
    rotation_deg: float = SAME_ROTATION_DEG,
    direction_deg: float = SAME_DIRECTION_DEG,
) -> bool:
    """Whether two poses are one answer, up to scale; by their rotations only, if `directions` is False."""
    if distances.rotation_error_deg(T_a[:3, :3], T_b[:3, :3]) > rotation_deg:
        return False
    return not directions or distances.translation_error_deg(T_a[:3, 3], T_b[:3, 3]) < direction_deg


@dataclass(frozen=True)
class Verdict:
    """Whether an estimate is believed: Reason.NONE if so."""

    probability: float
    reason: Reason
    text: str


def judge(
    estimate: Estimate, evidence: Evidence, settings: VerificationConfig, min_probability: float
) -> Verdict:
    """Say how far to believe an estimate, and if not enough, why, in words that help."""
    believed = probability(evidence, estimate.estimator)
    features = evidence.features
    sigma_deg = rotation_sigma_deg(estimate)
    if evidence.tracks < settings.min_tracks:
        return Verdict(
            believed,
            Reason.WEAK_BRIDGE,
            f"only {evidence.tracks} tracks tie the two sides together, {settings.min_tracks} are needed",
        )
    if sigma_deg > settings.max_rotation_sigma_deg:
        return Verdict(
            believed,
            Reason.LOW_PARALLAX,
            f"the rotation is only known to {sigma_deg:.1f} degrees; views from other places would help",
        )
    if features["agreement"] < settings.min_agreement:
        return Verdict(
            believed,
            Reason.INCONSISTENT,
            f"only {100 * features['agreement']:.0f} % of the matches across the gap agree with the answer",
        )
    if not estimate.rigid_sides and features["parallax_deg"] > settings.max_parallax_deg:
        return Verdict(
            believed,
            Reason.INCONSISTENT,
            f"the points that link the two sides would be seen from {features['parallax_deg']:.0f} degrees "
            "apart, where no match can be told from chance",
        )
    said = estimate.witnesses
    if DENIAL_WEIGHT * said.denied > said.confirmed:
        return Verdict(
            believed,
            Reason.INCONSISTENT,
            f"{said.denied} pictures of the target side should show much that the reference side saw, and "
            f"show next to nothing of it; {said.confirmed} do",
        )
    if believed >= min_probability:
        return Verdict(believed, Reason.NONE, "")
    doubt = f"correct with a probability of only {believed:.2f}, {min_probability:g} is asked for: "
    if features["rival_patches"] > STRONG_RIVAL:
        return Verdict(
            believed,
            Reason.AMBIGUOUS,
            doubt + "another alignment of the two sides fits nearly as well; repeated patterns do that",
        )
    if features["agreement"] < LOW_AGREEMENT:
        return Verdict(
            believed,
            Reason.INCONSISTENT,
            doubt + f"only {100 * features['agreement']:.0f} % of the matches across the gap agree with it",
        )
    return Verdict(
        believed,
        Reason.LOW_PROBABILITY,
        doubt
        + f"{evidence.tracks} tracks tie the two sides, in {np.exp(features['log_patches']):.0f} patches of "
        f"{CELL_DEG:g} degrees",
    )


def one_thing(evidence: Evidence, metres: float, question: Question, settings: Config) -> str:
    """Say why what ties the sides may be one thing, which may have a twin elsewhere; nothing if it may not.

    Furniture, posters and doors come in numbers, and a twin ties two places as well as the thing itself ties
    one. What is larger hardly comes twice; of what is flat, it takes more to be larger than a door. Nor may a
    twin stand where a prior leaves no room for it.

    Args:
        evidence: What ties the sides.
        metres: By which its points are multiplied to be metres.
        question: With its prior, and what it asks for.
        settings: Of verification, and how far an answer may be from a prior.
    """
    limits, points = settings.verification, metres * evidence.points
    needed_m, flat = question.min_extent_m, False
    if needed_m is None:
        flat = is_flat(points)
        needed_m = max(limits.min_extent_m, limits.min_flat_extent_m) if flat else limits.min_extent_m
    if question.prior is not None:
        sigma_m = uncertainty.largest_sigma(question.prior.covariance[:3, :3])
        needed_m = min(needed_m, settings.gates.max_prior_sigma * sigma_m)
    extent_m = extent(points)
    if extent_m >= needed_m:
        return ""
    return (
        f"all that ties the two sides lies within {extent_m:.1f} m{' and is flat' if flat else ''}, "
        f"{needed_m:g} m are needed: another thing like it would look the same; views of more around it "
        "would help"
    )


def extent(points: Array) -> float:
    """Return how far points, (N, 3), reach: a tenth of their pairs are farther apart. 0 without a pair."""
    some = points[:: 1 + len(points) // MANY_POINTS]
    return float(np.quantile(pdist(some), 0.9)) if len(some) > 1 else 0.0


def is_flat(points: Array) -> bool:
    """Return whether points, (N, 3) in metres, lie on something flat, but for a few."""
    near, off_m = points, np.zeros(len(points))
    for _ in range(PLANE_FITS):
        centre = near.mean(axis=0)
        off_m = np.abs((points - centre) @ np.linalg.svd(near - centre, full_matrices=False)[2][-1])
        near = points[off_m <= np.quantile(off_m, FLAT_SHARE)]
    return bool(np.mean(off_m < FLAT_M) >= FLAT_SHARE)


def _knows_direction(estimate: Estimate) -> bool:
    if not estimate.translation_defined:
        return False
    sigma_rad = uncertainty.direction_sigma_rad(estimate.T_reference_target, estimate.covariance)
    return bool(np.degrees(sigma_rad) < SAME_DIRECTION_DEG)


def probability(evidence: Evidence, estimator: str) -> float:
    """Return how probable it is that an estimate with this evidence is correct (docs/method.md)."""
    model = _model()[estimator]
    logit = model["intercept"] + sum(
        weight
        * (np.clip(evidence.features[name], *model["range"][name]) - model["mean"][name])
        / model["std"][name]
        for name, weight in model["weights"].items()
    )
    return float(1.0 / (1.0 + np.exp(-logit)))


def rotation_sigma_deg(estimate: Estimate) -> float:
    """Largest standard deviation of the rotation."""
    return float(np.degrees(uncertainty.largest_sigma(estimate.covariance[3:, 3:])))


@cache
def _model() -> Mapping[str, dict[str, Any]]:
    return json.loads(MODEL_FILE.read_text())["estimators"]


def _best_views(cut: Cut, visible: NDArray[np.bool_]) -> tuple[int, int]:
    """On either side the view that sees most of the linking points, (points, views)."""
    seen = visible.sum(axis=0)
    return int(np.where(~cut.target_side, seen, -1).argmax()), int(
        np.where(cut.target_side, seen, -1).argmax()
    )


def _rays(estimate: Estimate, points: Indices, view: int) -> Array:
    """Unit vectors from a camera to points, (N, 3)."""
    return _to_unit(
        rigid.transform(rigid.inverse(estimate.T_reference_camera[view]), estimate.points[points])
    )


def _to_unit(vectors: Array) -> Array:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _patches(estimate: Estimate, points: Indices, view: int) -> int:
    """Cells of the sky that points occupy as a camera would see them, in its image or not."""
    return len(np.unique(_cells(estimate, points, view, CELL_DEG), axis=0))


def _support(estimate: Estimate, points: Indices, view: int) -> int:
    """How many points there are, those in one large cell of the sky up to `ENOUGH`."""
    _, counts = np.unique(_cells(estimate, points, view, LARGE_CELL_DEG), axis=0, return_counts=True)
    return int(np.minimum(counts, ENOUGH).sum())


def _cells(estimate: Estimate, points: Indices, view: int, cell_deg: float) -> Indices:
    rays = _rays(estimate, points, view)
    angles_deg = np.degrees(np.c_[np.arctan2(rays[:, 0], rays[:, 2]), np.arcsin(np.clip(rays[:, 1], -1, 1))])
    return np.floor(angles_deg / cell_deg).astype(np.intp)


def _agrees(problem: Problem, estimate: Estimate, a: int, b: int, pairs: Indices) -> NDArray[np.bool_]:
    x_a, x_b = problem.features[a].points[pairs[:, 0]], problem.features[b].points[pairs[:, 1]]
    T_b_a = rigid.relative(estimate.T_reference_camera[b], estimate.T_reference_camera[a])
    limit = AGREE_PX / problem.focal_px()
    if np.linalg.norm(T_b_a[:3, 3]) < 1e-9:  # no translation: the point stays on its ray
        turned = np.c_[x_a, np.ones(len(x_a))] @ T_b_a[:3, :3].T
        return np.linalg.norm(turned[:, :2] / turned[:, 2:] - x_b, axis=1) < limit
    error = epipolar.sampson_error(epipolar.essential_from_pose(T_b_a), x_a, x_b)
    return (error < limit) & epipolar.in_front(T_b_a, x_a, x_b)


def _agreement(problem: Problem, estimate: Estimate, cut: Cut) -> tuple[int, int]:
    """Of the matches across the cut, in the pairs that agree best, how many agree, and how many there are."""
    counts = []
    for (a, b), pairs in problem.matches.items():
        crosses = cut.target_side[a] != cut.target_side[b] and {a, b} <= set(estimate.T_reference_camera)
        if crosses and len(pairs):
            counts.append((int(_agrees(problem, estimate, a, b, pairs).sum()), len(pairs)))
    best = sorted(counts, reverse=True)[:5]
    return sum(agreeing for agreeing, _ in best), sum(total for _, total in best)


def _parallax_deg(estimate: Estimate, cut: Cut, visible: NDArray[np.bool_]) -> float:
    """Median over linking points of the smallest angle between a ray to either side's cameras."""
    if not len(cut.points):
        return 0.0
    cosine = np.full(len(cut.points), -1.0)
    rays = {
        view: _to_unit(estimate.T_reference_camera[view][:3, 3] - estimate.points[cut.points])
        for view in estimate.T_reference_camera
    }
    for a in rays:
        for b in rays:
            if cut.target_side[a] < cut.target_side[b]:
                both = visible[:, a] & visible[:, b]
                cosine[both] = np.maximum(cosine[both], np.sum(rays[a] * rays[b], axis=1)[both])
    return float(np.degrees(np.median(np.arccos(np.clip(cosine, -1, 1)))))
