# SPDX-License-Identifier: Apache-2.0
"""A real worker with a bridge that does what the target's name says: to misbehave on demand.

python fake_worker.py HOW ... FILE_DESCRIPTOR
"""

import ctypes
import faulthandler
import itertools
import os
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from pose_bridge import bridge
from pose_bridge.config import Config
from pose_bridge.control import Control
from pose_bridge.errors import BadImageError, NoEstimateError
from pose_bridge.views import Answer, Evidence, Question, Reason, ScaleSource, Stage, Status, Translation
from pose_bridge.worker import protocol, questions, server

PREFIX = protocol._PREFIX


class OddError(NoEstimateError):
    """One that only the worker knows."""


class FakeBridge:
    connection = -1
    needs_models = False

    def __init__(self, config: Config) -> None:
        self._config = config
        self._asked = itertools.count(1)

    def answer(self, question: Question, control: Control) -> Answer:
        what, *details = question.target.id.split(" ", 1)
        control.step(what)
        getattr(self, what)(question, control, *details)
        control.better(Answer.rejected(Reason.WEAK_BRIDGE, f"question {next(self._asked)}"))
        return answer(question)

    def at_once(self, question: Question, control: Control) -> None:
        pass

    def patiently(self, question: Question, control: Control) -> None:
        while True:
            control.check()
            time.sleep(0.01)

    def deaf(self, question: Question, control: Control, seconds: str) -> None:
        time.sleep(float(seconds))

    def greedy(self, question: Question, control: Control, seconds: str) -> None:
        """Hold the interpreter, as some libraries do."""
        ctypes.PyDLL(None).usleep(int(1e6 * float(seconds)))

    def memory(self, question: Question, control: Control, how: str) -> None:
        if how == "numpy":
            np.ones(2**33, np.uint8)
        elif how == "opencv":
            cv2.resize(np.zeros((100, 100, 3), np.uint8), (50000, 50000))
        else:
            raise RuntimeError(how)

    def crash(self, question: Question, control: Control) -> None:
        print("these are my last words", flush=True)
        faulthandler._sigsegv()

    def bad_image(self, question: Question, control: Control) -> None:
        raise BadImageError("view x: too small")

    def odd(self, question: Question, control: Control) -> None:
        raise OddError("odd")

    def unexpected(self, question: Question, control: Control) -> None:
        raise ZeroDivisionError("by nothing")

    def prints(self, question: Question, control: Control) -> None:
        os.write(1, b"\x00\xff PBrg rubbish\n" * 1000)
        os.write(2, b"\x00\xff PBrg rubbish\n" * 1000)

    def writes(self, question: Question, control: Control, what: str) -> None:
        """Rubbish on the connection itself."""
        os.write(
            self.connection,
            {
                "noise": os.urandom(5000),
                "pickle": frame(b'["answer",1,{"array":0},[["|O",[1]]]]', 8) + bytes(8),
                "no-pose": frame(b'["answer",1,{"Answer":{"status":{"Status":3}}},[]]'),
                "no-such-error": frame(b'["error",1,["SystemExit","bye",""],[]]'),
                "other-errand": frame(b'["step",77,"hello",[]]'),
                "missing-twice": 2 * frame(b'["missing",1,null,[]]'),
            }[what],
        )
        time.sleep(60)

    def never_ends(self, question: Question, control: Control) -> None:
        """A message that is begun, and signs of life in its middle."""
        os.write(self.connection, PREFIX.pack(b"PBrg", 2**20, 0))
        time.sleep(60)


def frame(header: bytes, size: int = 0) -> bytes:
    return PREFIX.pack(b"PBrg", len(header), size) + header


def answer(question: Question) -> Answer:
    """An answer with something in every field, made of what the question holds."""
    views = (question.target, question.reference, *question.reference_context, *question.target_context)
    T = np.eye(4)
    T[:3, 3] = [float(view.image.mean()) for view in (*views, *views, *views)][:3]
    return Answer(
        status=Status.ACCEPTED,
        reason=Reason.NO_SCALE,
        reason_text=f"\ud800 ü {question.seed}",
        stage=Stage.CONTEXT,
        probability=1 / 3,
        translation=Translation.METRIC,
        scale_source=ScaleSource.DEPTH,
        estimator=question.target.id,
        real_frames=len(views),
        evidence=Evidence(
            tracks=7,
            features={"one": 1e-300, "none": float("nan"), "infinite": float("inf")},
            reference_view_id=question.reference.id,
            target_view_id=question.target.id,
            reference_points_px=np.random.default_rng(question.seed).normal(size=(7, 2)),
            target_points_px=np.zeros((0, 2)),
            points=np.random.default_rng(question.seed).normal(size=(7, 3)),
        ),
        cameras={view.id: T if view.T_side_camera is None else view.T_side_camera for view in views},
        elapsed_s=0.25,
        _T_reference_target=T,
        _covariance=np.asfortranarray(np.diag(np.arange(6.0)) + 1e-12),
        _direction_sigma_rad=0.1,
    )


def main(how: list[str], connection: int) -> None:
    bridge.Bridge = FakeBridge
    FakeBridge.connection = connection
    if "other-version" in how:
        protocol.VERSION = 999
    if "says-other-version" in how:
        os.write(connection, frame(b'["ready",0,999,[]]'))
    if "silent" in how or "says-other-version" in how:
        time.sleep(60)
    if "forgetful" in how:
        questions.Recent.use = lambda *_: None
    if "once" in how:
        mark = Path(how[how.index("once") + 1])
        if mark.exists():
            sys.exit("only once")
        mark.touch()
    server.main(connection)


if __name__ == "__main__":
    main(sys.argv[1:-1], int(sys.argv[-1]))
