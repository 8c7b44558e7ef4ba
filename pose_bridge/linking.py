# SPDX-License-Identifier: Apache-2.0
"""From views to a problem for an estimator: choose context, match it, strengthen the weakest links."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import cv2
import numpy as np
from numpy.typing import NDArray

from pose_bridge.config import Config
from pose_bridge.control import Control
from pose_bridge.estimators.base import Indices, Problem
from pose_bridge.estimators.pairs import PairVerifier
from pose_bridge.features import Features, FeatureStore
from pose_bridge.keyframes import selection, sight
from pose_bridge.keyframes.neighbours import MATCHABLE_DEG
from pose_bridge.views import Question, View

HOPELESS = 8  # pairs across the gap that are tried before nothing at all is taken for an answer
PREVIEW_FEATURES = 300  # per view tell which of many views see the same
MATES = 4  # views of its own side that a view is matched with where odometry says how they lie
BASELINE_M = 0.3  # from which more does not make better points
BATCH = 4  # pairs that are matched before the weakest link is looked for again


class Linker:
    """Builds problems; features, matches and two-view geometries of views seen before are remembered."""

    def __init__(self, config: Config, features: FeatureStore, verifier: PairVerifier) -> None:
        self._settings = config.context
        self._store = features
        brisk = dataclasses.replace(features.settings, tilt_levels=config.rigs.tilt_levels)
        self._brisk = FeatureStore(brisk, features.views)
        few = dataclasses.replace(features.settings, max_features=PREVIEW_FEATURES)
        self._preview = FeatureStore(few, features.views)
        self._verifier = verifier

    def pair(self, question: Question, control: Control) -> Problem:
        """The two views alone."""
        return self._problem(
            self._store, [question.reference, question.target], [0, 1], question.seed, control
        )

    def reference_side(self, question: Question, control: Control) -> Problem:
        """The target and the views around the reference."""
        views = [question.reference, question.target, *question.reference_context]
        return self._selected(views, [0, 1] + [0] * len(question.reference_context), question.seed, control)

    def context(self, question: Question, control: Control) -> Problem:
        """All real views around both ends, the links across the gap matched with simulated tilts too."""
        views, sides = _both_sides(question)
        return self.widened(self._selected(views, sides, question.seed, control), control)

    def rigs(self, question: Question, control: Control) -> Problem:
        """All real views, each matched with all of the other side, and with a few of its own."""
        views, sides = _both_sides(question)
        views, sides = self._usable(views, sides, sides)  # a picture of both sides ties them
        pairs = [pair for pair in combinations(range(len(views)), 2) if sides[pair[0]] != sides[pair[1]]]
        pairs += sorted(self._beside(views, sides))
        problem = self._matched(self._brisk, views, sides, pairs, question.seed, control)
        level = question.upright and question.common_ground
        return dataclasses.replace(problem, level=level, mapped=question.mapped)

    def rigs_wide(self, question: Question, control: Control) -> Problem:
        """The same with simulated tilts."""
        problem = self.rigs(question, control)
        return _matched_wide(self._brisk, problem, list(problem.matches), control)

    def _beside(self, views: Sequence[View], sides: Sequence[int]) -> set[tuple[int, int]]:
        """Pairs within a side that see the same from different places: they make points of matches."""
        T_side_camera = sight.stacked([view.T_side_camera for view in views])
        found = set()
        for index, view in enumerate(views):
            own = np.array([o for o, side in enumerate(sides) if side == sides[index] and o != index], int)
            T_view_other = np.linalg.inv(T_side_camera[index]) @ T_side_camera[own]
            alike = sight.seen_alike(view, [views[o] for o in own], T_view_other, MATCHABLE_DEG)
            worth = alike * np.minimum(1.0, np.linalg.norm(T_view_other[:, :3, 3], axis=1) / BASELINE_M)
            best = own[np.argsort(-worth, kind="stable")[:MATES]]
            found |= {
                (min(index, other), max(index, other)) for other in best[: int((worth > 0.0).sum())].tolist()
            }
        return found

    def widened(self, problem: Problem, control: Control) -> Problem:
        """Match again with simulated tilts where the path between the ends is weakest, best pairs first.

        After each few pairs it is looked up anew where that is, until it is a `context.strong_link` or
        `context.wide_pairs` are spent, or the most promising pairs brought nothing at all.
        """
        plain = {pair: len(found) for pair, found in problem.matches.items()}
        strength = self._strength(problem, control)
        beside = strength.copy()
        left, links = set(plain), set()
        for spent in range(0, self._settings.wide_pairs, BATCH):
            beyond, tie = selection.weakest_link(strength)
            if tie >= self._settings.strong_link or (tie == 0.0 and spent >= HOPELESS):
                break
            across = [pair for pair in left if beyond[pair[0]] != beyond[pair[1]]]
            if not across:
                break
            chosen = _spread(sorted(across, key=lambda pair: (-plain[pair], pair)))
            chosen = chosen[: min(BATCH, self._settings.wide_pairs - spent)]
            left -= set(chosen)
            problem = _matched_wide(self._store, problem, chosen, control)
            for pair, geometry in self._verifier.verify(problem, control, chosen).items():
                strength[pair] = strength[pair[::-1]] = len(geometry.inlier_matches)
                links.add(pair)
        # What links the sides must be seen twice on its own side to become a point.
        best = {view: int(beside[view].argmax()) for pair in links for view in pair if beside[view].any()}
        neighbours = {(min(pair), max(pair)) for pair in best.items()} & left
        return _matched_wide(self._store, problem, sorted(neighbours), control)

    def _selected(self, views: list[View], sides: list[int], seed: int, control: Control) -> Problem:
        """Of the usable views, no more than `context.max_views`."""
        views, sides = self._usable(views, sides, [0] * len(views))
        if len(views) > self._settings.max_views:
            preview = self._problem(self._preview, views, sides, seed, control)
            chosen = selection.select(_overlap(preview), np.array(sides), self._settings.max_views)
            views, sides = [views[i] for i in chosen], [sides[i] for i in chosen]
        return self._problem(self._store, views, sides, seed, control)

    def _usable(self, views: list[View], sides: list[int], groups: list[int]) -> tuple[list[View], list[int]]:
        """Leave out pictures that are too small, or twice in one group; the two ends stay."""
        named = [(view.fingerprint, group) for view, group in zip(views, groups, strict=True)]
        first = {name: index for index, name in reversed(list(enumerate(named)))}
        keep = [
            index
            for index, view in enumerate(views)
            if index < 2 or (first[named[index]] == index and self._store.accepts(view))
        ]
        return [views[i] for i in keep], [sides[i] for i in keep]

    def _problem(
        self,
        store: FeatureStore,
        views: Sequence[View],
        sides: Sequence[int],
        seed: int,
        control: Control,
    ) -> Problem:
        """All views, each matched with each."""
        pairs = list(combinations(range(len(views)), 2))
        return self._matched(store, views, sides, pairs, seed, control)

    def _matched(
        self,
        store: FeatureStore,
        views: Sequence[View],
        sides: Sequence[int],
        pairs: Sequence[tuple[int, int]],
        seed: int,
        control: Control,
    ) -> Problem:
        """All views, those pairs matched."""
        control.check()
        features = _extract(store, views, False, control)
        matches = dict(zip(pairs, _match(store, views, pairs, False, control), strict=True))
        return Problem(tuple(views), tuple(features), matches, tuple(sides), seed)

    def _strength(self, problem: Problem, control: Control) -> NDArray[np.float64]:
        strength = np.zeros((len(problem.views),) * 2)
        for pair, geometry in self._verifier.verify(problem, control).items():
            strength[pair] = strength[pair[::-1]] = len(geometry.inlier_matches)
        return strength


def _matched_wide(
    store: FeatureStore, problem: Problem, pairs: Sequence[tuple[int, int]], control: Control
) -> Problem:
    """The problem with those pairs matched with simulated tilts."""
    control.check()
    views = sorted({view for pair in pairs for view in pair})
    features = list(problem.features)
    extracted = _extract(store, [problem.views[view] for view in views], True, control)
    for view, more in zip(views, extracted, strict=True):
        features[view] = more
    matches = dict(problem.matches)
    matches.update(zip(pairs, _match(store, problem.views, pairs, True, control), strict=True))
    return dataclasses.replace(problem, features=tuple(features), matches=matches)


def _both_sides(question: Question) -> tuple[list[View], list[int]]:
    views = [question.reference, question.target, *question.reference_context, *question.target_context]
    sides = [0, 1] + [0] * len(question.reference_context) + [1] * len(question.target_context)
    return views, sides


def _extract(store: FeatureStore, views: Sequence[View], wide: bool, control: Control) -> list[Features]:
    def one(view: View) -> Features:
        control.check()
        return store.features(view, wide=wide)

    with ThreadPoolExecutor(max(1, cv2.getNumThreads())) as pool:
        return list(pool.map(one, views))


def _match(
    store: FeatureStore,
    views: Sequence[View],
    pairs: Sequence[tuple[int, int]],
    wide: bool,
    control: Control,
) -> list[Indices]:
    def one(pair: tuple[int, int]) -> Indices:
        control.check()
        return store.matches(views[pair[0]], views[pair[1]], wide=wide)

    with ThreadPoolExecutor(max(1, cv2.getNumThreads())) as pool:
        return list(pool.map(one, pairs))


def _spread(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Move pairs in which no view appears twice to the front, in the order in which they come."""
    used: set[int] = set()
    apart = []
    for pair in pairs:
        if not used & set(pair):
            apart.append(pair)
            used |= set(pair)
    return apart + [pair for pair in pairs if pair not in set(apart)]


def _overlap(problem: Problem) -> NDArray[np.float64]:
    overlap = np.zeros((len(problem.views),) * 2)
    for (a, b), pairs in problem.matches.items():
        keypoints = min(problem.features[a].plain_points, problem.features[b].plain_points)
        overlap[a, b] = overlap[b, a] = len(pairs) / max(keypoints, 1)
    return overlap
