# SPDX-License-Identifier: Apache-2.0
"""The fit of the probability model, and the rows that it is made from."""

from __future__ import annotations

import numpy as np
import pytest

from pose_bridge.config import Config
from pose_bridge.training.verification_model import SIGN, fit, rows_of, rungs


def rows(seed: int, slope: dict[str, float]) -> list[tuple[dict[str, float], bool]]:
    """Evidence of mean 0 and spread 1, right with the logit that the slopes say."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((4000, len(SIGN)))
    logit = x @ [slope.get(name, 0.0) for name in SIGN]
    right = rng.random(len(x)) < 1.0 / (1.0 + np.exp(-logit))
    return [(dict(zip(SIGN, map(float, row), strict=True)), bool(r)) for row, r in zip(x, right, strict=True)]


@pytest.mark.parametrize("wrong_share", [0.25, 0.5])
def test_evidence_that_says_nothing_leaves_the_share_that_was_given(wrong_share: float) -> None:
    model = fit(rows(0, {}), wrong_share)
    assert model["intercept"] == pytest.approx(np.log((1 - wrong_share) / wrong_share), abs=0.02)
    assert max(map(abs, model["weights"].values())) < 0.1


def test_the_slopes_are_found_and_never_the_wrong_sign() -> None:
    slopes = {"agreement": 1.5, "rival_patches": -0.8, "log_patches": -1.0}  # the last one is unphysical
    weights = fit(rows(1, slopes), 0.5)["weights"]
    assert weights["agreement"] == pytest.approx(1.5, abs=0.35)
    assert weights["rival_patches"] == pytest.approx(-0.8, abs=0.25)
    assert weights["log_patches"] == 0.0


def test_the_rungs_are_the_ladder() -> None:
    assert [rung.estimator.stage.name for rung in rungs(Config())] == ["DIRECT", "REGISTER", "CONTEXT"]


def test_a_question_gives_rows_of_its_rungs() -> None:
    found = rows_of(8)
    assert {stage for stage, _, _ in found} == {"direct", "register", "context"}
    assert all(set(SIGN) <= features.keys() for _, features, _ in found)
    assert any(right for _, _, right in found)
