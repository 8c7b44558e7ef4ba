# SPDX-License-Identifier: Apache-2.0
"""The ladder."""

from __future__ import annotations

from pose_bridge.config import Config
from pose_bridge.control import Control
from pose_bridge.views import Answer, Question, Reason


class Bridge:
    """Answers questions; keeps the features of the views it has seen."""

    def __init__(self, config: Config | None = None) -> None:
        self._config = config or Config()

    def answer(self, question: Question, control: Control | None = None) -> Answer:
        """Say where the target camera is, seen from the reference camera, or why that is not known.

        Raises:
            CancelledError: From `control`.
            BadInputError: The question cannot be meant.
        """
        return Answer.rejected(Reason.NO_OVERLAP, "not built yet")
