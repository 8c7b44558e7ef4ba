# SPDX-License-Identifier: Apache-2.0
import dataclasses
import threading

import numpy as np
import pytest
from synthetic import arc, cloud, problem

from pose_bridge.config import SfmConfig
from pose_bridge.control import Control
from pose_bridge.errors import CancelledError
from pose_bridge.estimators.pairs import PairVerifier
from pose_bridge.geometry import distances, rigid


def test_right_geometry_and_inliers_among_outliers() -> None:
    rng = np.random.default_rng(0)
    T_world = arc([0.0, 20.0, 10.0])
    asked = problem(T_world, cloud(rng), rng, noise_px=0.4, outliers=0.3)
    found = PairVerifier(SfmConfig()).verify(asked, Control())
    assert set(found) == {(0, 1), (0, 2), (1, 2)}
    for (a, b), geometry in found.items():
        R = rigid.relative(T_world[b], T_world[a])[:3, :3]
        assert distances.rotation_error_deg(geometry.cam2_from_cam1.rotation.matrix(), R) < 1.5
        right = geometry.inlier_matches[:, 0] == geometry.inlier_matches[:, 1]
        assert right.sum() > 100
        assert right.mean() > 0.95


def test_chance_is_left_out() -> None:
    rng = np.random.default_rng(1)
    asked = problem(arc([0.0, 20.0, 10.0]), cloud(rng), rng, noise_px=0.4)
    matches = {**asked.matches, (0, 1): np.c_[np.arange(60), rng.permutation(60)]}
    matches[1, 2] = matches[1, 2][:19]  # too few
    found = PairVerifier(SfmConfig()).verify(dataclasses.replace(asked, matches=matches), Control())
    assert set(found) == {(0, 2)}


def test_only_the_pairs_that_were_named() -> None:
    rng = np.random.default_rng(2)
    asked = problem(arc([0.0, 20.0, 10.0]), cloud(rng), rng)
    assert set(PairVerifier(SfmConfig()).verify(asked, Control(), [(0, 2)])) == {(0, 2)}


def test_asked_again_it_remembers(monkeypatch: pytest.MonkeyPatch) -> None:
    """By picture, matches and seed; another one of them is another question."""
    rng = np.random.default_rng(3)
    asked = problem(arc([0.0, 20.0]), cloud(rng), rng)
    verifier, calls = PairVerifier(SfmConfig()), []
    estimate = PairVerifier._estimate

    def count(self: PairVerifier, *rest: object) -> object:
        calls.append(rest)
        return estimate(self, *rest)

    monkeypatch.setattr(PairVerifier, "_estimate", count)
    first = verifier.verify(asked, Control())
    assert verifier.verify(asked, Control()) == first
    assert len(calls) == 1
    verifier.verify(dataclasses.replace(asked, seed=asked.seed + 1), Control())
    assert len(calls) == 2
    verifier.verify(dataclasses.replace(asked, matches={(0, 1): asked.matches[0, 1][:-1]}), Control())
    assert len(calls) == 3
    other = problem(arc([0.0, 20.0]), cloud(rng), rng)
    views = [other.views[0], dataclasses.replace(other.views[1], mask=np.ones((480, 640), bool))]
    verifier.verify(dataclasses.replace(asked, views=views), Control())
    assert len(calls) == 4


def test_cancelled() -> None:
    rng = np.random.default_rng(4)
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(CancelledError):
        PairVerifier(SfmConfig()).verify(problem(arc([0.0, 20.0]), cloud(rng), rng), Control(cancelled))
