# SPDX-License-Identifier: Apache-2.0
"""The fit of the probability model, and the rows that it is made from."""

from __future__ import annotations

import numpy as np
import pytest
import synthetic

from pose_bridge.bridge import ladder
from pose_bridge.config import Config
from pose_bridge.estimators.base import Estimate
from pose_bridge.features import FeatureStore
from pose_bridge.geometry import rigid, rotations
from pose_bridge.training.verification_model import EVIDENCE, SIGN, WRONG_SHARE, correct, fit, rows_of
from pose_bridge.views import Stage


def rows(seed: int, slope: dict[str, float]) -> list[tuple[dict[str, float], bool]]:
    """Evidence of mean 0 and spread 1, right with the logit that the slopes say."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((4000, len(SIGN)))
    logit = x @ [slope.get(name, 0.0) for name in SIGN]
    right = rng.random(len(x)) < 1.0 / (1.0 + np.exp(-logit))
    return [(dict(zip(SIGN, map(float, row), strict=True)), bool(r)) for row, r in zip(x, right, strict=True)]


@pytest.mark.parametrize("estimator", WRONG_SHARE)
def test_evidence_that_says_nothing_leaves_the_share_that_was_given(estimator: str) -> None:
    model, share = fit(rows(0, {}), estimator), WRONG_SHARE[estimator]
    assert model["intercept"] == pytest.approx(np.log((1 - share) / share), abs=0.02)
    assert max(map(abs, model["weights"].values())) < 0.1


def test_the_slopes_are_found_and_never_the_wrong_sign() -> None:
    slopes = {"agreement": 1.5, "rival_patches": -0.8, "log_patches": -1.0}  # the last one is unphysical
    weights = fit(rows(1, slopes), "two_view")["weights"]
    assert weights["agreement"] == pytest.approx(1.3, abs=0.35)  # the one that is left out dilutes them
    assert weights["rival_patches"] == pytest.approx(-0.8, abs=0.25)
    assert weights["log_patches"] == 0.0


def test_every_estimator_of_the_ladder_has_a_model() -> None:
    config = Config()
    rungs = ladder(config, FeatureStore(config.features, config.views))
    assert {rung.estimator.name for rung in rungs} == set(WRONG_SHARE) == set(EVIDENCE)


def test_a_question_gives_rows_of_its_rungs() -> None:
    found = rows_of(8)
    assert {"two_view", "registration"} < {estimator for estimator, _, _ in found}
    assert all(set(SIGN) <= features.keys() for _, features, _ in found)
    assert any(right for _, _, right in found)


@pytest.mark.parametrize(
    ("rigid_sides", "turned_deg", "off_m", "right"),
    [
        (True, 0.0, 0.15, True),  # of 2 m
        (True, 0.0, 0.25, False),  # 7 degrees, but there are metres
        (True, 6.0, 0.0, False),
        (False, 0.0, 0.25, True),
        (False, 0.0, 0.7, False),  # 19 degrees
        (False, 4.0, 0.0, True),
    ],
)
def test_correct_is_what_the_method_says(
    rigid_sides: bool, turned_deg: float, off_m: float, right: bool
) -> None:
    baseline_m = 2.0
    T_true = rigid.make(np.eye(3), [baseline_m, 0.0, 0.0])
    R = rotations.so3_exp([0.0, np.radians(turned_deg), 0.0])
    found = rigid.make(R, np.array([baseline_m, off_m, 0.0]) / (1.0 if rigid_sides else baseline_m))
    estimate = Estimate(
        stage=Stage.CONTEXT,
        estimator="any",
        T_reference_camera={0: np.eye(4), 1: found},
        tracks=synthetic.all_tracks(2, 0),
        points=np.empty((0, 3)),
        rms_px=0.5,
        joint_covariance=1e-6 * np.eye(6),
        covariance_views=(1,),
        rigid_sides=rigid_sides,
    )
    assert correct(estimate, 1, T_true, baseline_m) is right
