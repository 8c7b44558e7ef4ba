# SPDX-License-Identifier: Apache-2.0
"""Which places of the map may be what the robot sees: alike as a whole, then by matches, then spread out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from pose_bridge.config import KeyframesConfig
from pose_bridge.features import FeatureStore
from pose_bridge.keyframes import sight
from pose_bridge.keyframes.keyframe import Keyframe
from pose_bridge.views import View

Vector = NDArray[np.float32]

WORDS = 64
LEARNING_DESCRIPTORS = 30000
LEARNING_ROUNDS = 12
OUTGROWN = 2  # a codebook is learned anew for a map this many times as large as the one it was learned from
MATCHED_PAIRS = 72  # of the most alike pairs that are matched, for all views of a query together
LEAST_MATCHES = 8
MAX_ERROR_PX = 1.5  # of the epipolar distance
HALF_STEPS = 1.0  # at which a keyframe stands for half of another
SAME_PLACE_STEPS = 3.0
MOST_PLACES = 1000  # keyframes of a larger map among which is chosen, the best ones


class Describer(Protocol):
    """Turns a whole picture into one vector of unit length; more alike, larger dot product."""

    def learn(self, views: Sequence[View]) -> bool:
        """Get used to the pictures of a map; True if vectors made before are of no use any more."""
        ...

    def describe(self, view: View) -> Vector:
        """Return the picture's vector, float32 (D,); zeros if it shows nothing."""
        ...


class Vlad:
    """Describes a picture by its local features, against a codebook learned from the map's own.

    Source: Jegou et al., Aggregating local descriptors into a compact image representation, CVPR 2010; with
    the power normalisation of Jegou and Chum, Negative evidences and co-occurences in image retrieval,
    ECCV 2012.
    """

    def __init__(self, store: FeatureStore, seed: int = 0) -> None:
        self._store = store
        self._seed = seed
        self._words = np.zeros((0, 0), np.float32)
        self._learned_from = 0

    def learn(self, views: Sequence[View]) -> bool:
        """Learn the codebook, unless it is from a map of about this size."""
        if self._learned_from and len(views) < OUTGROWN * self._learned_from:
            return False
        rng = np.random.default_rng(self._seed)
        each = -(-LEARNING_DESCRIPTORS // max(len(views), 1))
        samples = [rng.permutation(self._descriptors(view))[:each] for view in views]
        pool = np.concatenate([np.zeros((0, 128), np.float32), *samples])
        if len(pool) < WORDS:
            return False
        words = pool[rng.choice(len(pool), WORDS, replace=False)]
        labels = (pool @ words.T).argmax(axis=1).astype(np.int32)
        criteria = (cv2.TERM_CRITERIA_MAX_ITER, LEARNING_ROUNDS, 0.0)
        # with labels to begin with, it draws no random numbers of its own
        _, _, centres = cv2.kmeans(pool, WORDS, labels, criteria, 1, cv2.KMEANS_USE_INITIAL_LABELS)
        self._words = np.asarray(centres, np.float32)
        self._learned_from = len(views)
        return True

    def describe(self, view: View) -> Vector:
        """Return how the picture's features differ from their words, summed per word, (WORDS * 128,)."""
        descriptors = self._descriptors(view)
        total = np.zeros((WORDS, 128), np.float32)
        if self._learned_from:
            # |d - w|^2 without |d|^2, which is 1
            words = (descriptors @ self._words.T - 0.5 * np.square(self._words).sum(axis=1)).argmax(axis=1)
            for word in np.unique(words):
                total[word] = (descriptors[words == word] - self._words[word]).sum(axis=0)
        powered = np.sign(total) * np.sqrt(np.abs(total))
        return np.asarray(powered.ravel() / max(float(np.linalg.norm(powered)), 1e-12), np.float32)

    def _descriptors(self, view: View) -> Vector:
        features = self._store.features(view)
        return features.descriptors[: features.plain_descriptors]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A place of the map that may be worth a bridge.

    Attributes:
        keyframe: Stands for the place.
        score: Matches with `view_id` that fit one motion of the camera, plus how alike the two pictures are
            as a whole, in [0, 1). Below 1, no match is known: it is there to cover the map.
        view_id: The view that looks most like it.
    """

    keyframe: Keyframe
    score: float
    view_id: str


class Retriever:
    """Searches a map; what the pictures look like is remembered. For any thread, one at a time.

    Args:
        store: Should hold as many views as the map and a query have together (`features.cache_views`), or
            features are extracted again and again.
        settings: What a step is.
        describer: None for `Vlad`.
    """

    def __init__(
        self,
        store: FeatureStore,
        settings: KeyframesConfig,
        describer: Describer | None = None,
    ) -> None:
        self._store = store
        self._settings = settings
        self._describer: Describer = Vlad(store) if describer is None else describer
        self._lock = threading.Lock()
        self._index: dict[str, tuple[View, Vector]] = {}

    def prepare(self, keyframes: Sequence[Keyframe]) -> None:
        """Look at the pictures of a map ahead of any query; those seen before cost nothing."""
        with self._lock:
            self._indexed(self._accepted(keyframes))

    def candidates(
        self,
        views: Sequence[View],
        keyframes: Sequence[Keyframe],
        count: int,
        check: Callable[[], None] = lambda: None,
    ) -> list[Candidate]:
        """Return the places to try, best first.

        They are spread over the map: first where pictures match, and where nothing does, as opposite views
        do not, so that they cover it.

        Args:
            views: What the robot sees; pictures that are too small are left out, here and in the map.
            keyframes: The map.
            count: Most candidates to return; fewer only where the map has fewer keyframes.
            check: Called between two pieces of work; what it raises ends the search.
        """
        views = [view for view in views if self._store.accepts(view)]
        keyframes = self._accepted(keyframes)
        if not views or not keyframes or count < 1:
            return []
        with self._lock:
            entries = self._indexed(keyframes)
            alike = (
                np.array([self._describer.describe(view) for view in views])
                @ np.array([vector for _, vector in entries]).T
            )
        score = np.clip(alike, 0.0, 0.999).astype(np.float64)
        pictures = [view for view, _ in entries]
        self._count_matches(score, views, pictures, _most_alike(score), check)
        view_of = score.argmax(axis=0)
        return [
            Candidate(keyframes[place], float(score[:, place].max()), views[int(view_of[place])].id)
            for place in self._cover(score, keyframes, count)
        ]

    def _count_matches(
        self,
        score: NDArray[np.float64],
        views: Sequence[View],
        pictures: Sequence[View],
        pairs: Sequence[tuple[int, int]],
        check: Callable[[], None],
    ) -> None:
        """Raise the score of pairs to how many of their matches fit one motion of the camera."""

        def fitting(pair: tuple[int, int]) -> int:
            check()
            return self._fitting(views[pair[0]], pictures[pair[1]])

        with ThreadPoolExecutor(max(1, cv2.getNumThreads())) as pool:
            for pair, found in zip(pairs, pool.map(fitting, pairs), strict=True):
                score[pair] = max(score[pair], score[pair] % 1.0 + found)

    def _fitting(self, a: View, b: View) -> int:
        matches = self._store.matches(a, b)
        if len(matches) < LEAST_MATCHES:
            return 0
        p_a, p_b = (self._store.features(view).points[matches[:, side]] for side, view in enumerate((a, b)))
        limit = MAX_ERROR_PX / max(a.camera.mean_focal_px, b.camera.mean_focal_px)
        _, fits = cv2.findEssentialMat(
            p_a, p_b, np.eye(3), method=cv2.USAC_MAGSAC, prob=0.999, threshold=limit
        )
        return 0 if fits is None else int(fits.sum())

    def _cover(self, score: NDArray[np.float64], keyframes: Sequence[Keyframe], count: int) -> list[int]:
        """Choose places, best first, that cover the map, and where it matches above all."""
        best = score.max(axis=0)
        pool = np.argsort(-best, kind="stable")[:MOST_PLACES].tolist()
        places = [keyframes[index] for index in pool]
        chosen = _spread(best[pool], sight.steps_between(places, places, self._settings), count)
        return [pool[place] for place in chosen]

    def _accepted(self, keyframes: Sequence[Keyframe]) -> list[Keyframe]:
        return [keyframe for keyframe in keyframes if self._store.accepts(keyframe.view())]

    def _indexed(self, keyframes: Sequence[Keyframe]) -> list[tuple[View, Vector]]:
        """Each keyframe's view and vector; others' are kept while there is room."""
        known = {k.id: self._index[k.id] for k in keyframes if _is_of(k, self._index.get(k.id))}
        views = [known[k.id][0] if k.id in known else k.view() for k in keyframes]
        if self._describer.learn(views):
            self._index, known = {}, {}
        fresh = {v.id: (v, self._describer.describe(v)) for v in views if v.id not in known}
        if len(self._index) + len(fresh) > 2 * self._settings.max_count:
            self._index = known
        self._index.update(fresh)
        return [self._index[view.id] for view in views]


def _is_of(keyframe: Keyframe, entry: tuple[View, Vector] | None) -> bool:
    """Whether an entry was made from this keyframe's picture, and not from another one of its name."""
    return entry is not None and entry[0].image is keyframe.image and entry[0].mask is keyframe.mask


def _most_alike(alike: NDArray[np.float64]) -> list[tuple[int, int]]:
    """MATCHED_PAIRS of (view, keyframe): every view's best, then every view's second best, and so on."""
    order = np.argsort(-alike, axis=1, kind="stable")
    pairs = [(view, int(order[view, rank])) for rank in range(alike.shape[1]) for view in range(len(alike))]
    return pairs[:MATCHED_PAIRS]


def _spread(score: NDArray[np.float64], apart: NDArray[np.float64], count: int) -> list[int]:
    """Choose greedily what stands for most of the map, where a place weighs more the more it matches.

    So where nothing matches, the choice covers the map (facility location). A place weighs no more for being
    photographed often, and is taken a second time only when there is no other.
    """
    nearness = 1.0 / (1.0 + apart / HALF_STEPS)
    np.fill_diagonal(nearness, 1.0)
    weight = (1.0 + score**2) / nearness.sum(axis=1)
    covered, elsewhere = np.zeros(len(score)), np.ones(len(score), bool)
    chosen: list[int] = []
    while len(chosen) < min(count, len(score)):
        gain = np.maximum(nearness - covered, 0.0) @ weight
        gain[chosen] = -1.0
        best = int(np.where(elsewhere | (not elsewhere.any()), gain, -1.0).argmax())
        chosen.append(best)
        covered = np.maximum(covered, nearness[best])
        elsewhere &= apart[best] > SAME_PLACE_STEPS
        elsewhere[best] = False
    return chosen
