# SPDX-License-Identifier: Apache-2.0
"""`pose_bridge estimate`, as a process where that matters, otherwise with an answer made by hand."""

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pose_bridge.bridge import Bridge
from pose_bridge.cli.main import main
from pose_bridge.control import Control
from pose_bridge.errors import CancelledError, NoEstimateError
from pose_bridge.geometry import rigid, rotations
from pose_bridge.views import Answer, Evidence, Question, Reason, Stage, Status, Translation

ROOT = Path(__file__).resolve().parents[2]
Make = Callable[[Question], Answer]


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


def process(*arguments: object, code: str = "from pose_bridge.cli.main import main; main()") -> Ended:
    """Run the command line in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr, done.stderr
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def photographs(tmp_path: Path) -> tuple[Path, Path]:
    """Two photographs, 160 x 120."""
    rng = np.random.default_rng(0)
    paths = (tmp_path / "a.png", tmp_path / "b.png")
    for path in paths:
        cv2.imwrite(str(path), rng.integers(0, 256, (120, 160, 3)).astype(np.uint8))
    return paths


@pytest.fixture
def estimate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Run the command here, with a bridge that gives the answer of `make`."""

    def run(make: Make, *arguments: object) -> Ended:
        def answer(self: Bridge, question: Question, control: Control) -> Answer:
            control.step("looking")
            return make(question)

        monkeypatch.setattr(Bridge, "answer", answer)
        monkeypatch.setattr(sys, "argv", ["pose_bridge", "estimate", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Ended(int(ended.value.code or 0), captured.out, captured.err)

    return run


def _evidence(question: Question, tracks: int = 80) -> Evidence:
    rng = np.random.default_rng(0)
    return Evidence(
        tracks=tracks,
        features={"parallax_deg": 4.0, "unknown": math.nan},
        reference_view_id=question.reference.id,
        target_view_id=question.target.id,
        reference_points_px=rng.uniform(0, 120, (tracks, 2)),
        target_points_px=rng.uniform(0, 120, (tracks, 2)),
        points=np.empty((0, 3)),
    )


def accepted(translation: Translation, reason: Reason = Reason.NONE) -> Make:
    """Make an answer: turned 60 degrees to the right, two metres to the right and one in front."""
    T = rigid.make(rotations.so3_exp((0.0, math.radians(60.0), 0.0)), (2.0, 0.0, 1.0))

    def make(question: Question) -> Answer:
        return Answer(
            status=Status.ACCEPTED,
            reason=reason,
            stage=Stage.CONTEXT,
            probability=0.97,
            translation=translation,
            evidence=_evidence(question),
            cameras={question.reference.id: np.eye(4), question.target.id: T},
            elapsed_s=1.5,
            _T_reference_target=T,
            _covariance=np.diag([0.01] * 3 + [1e-4] * 3),
            _direction_sigma_rad=0.02,
        )

    return make


def rejected(question: Question) -> Answer:
    """Answer no."""
    return Answer.rejected(Reason.AMBIGUOUS, "a rival has 31 tracks of 42", evidence=_evidence(question))


# --- processes ---


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere.png", "{b}"], "nowhere.png: there is no such file"),
        (["{text}", "{b}"], "notes.png: not an image"),
        (["{a}", "{b}"], "does not say its focal length; give its calibration with --cameras"),
        (["{a}", "{b}", "--cameras", "{cameras}"], "is 160x120, its calibration in"),
        (["{a}", "{b}", "--focal-px", "150", "--config", "{text}"], "notes.png: must hold groups"),
        (["{a}", "{b}", "--focal-px", "150", "--figure", "nowhere/a.png"], "there is no folder nowhere"),
        (["{a}", "{b}", "--focal-px", "150", "--budget", "0"], "budget_s must be > 0"),
    ],
    ids=["missing", "unreadable", "no focal length", "size", "settings", "figure", "budget"],
)
def test_an_error_is_one_line_and_one_json_object(
    photographs: tuple[Path, Path], tmp_path: Path, arguments: list[str], complaint: str
) -> None:
    a, b = photographs
    text, cameras = tmp_path / "notes.png", tmp_path / "cameras.json"
    text.write_text("hello")
    K = [[50.0, 0.0, 40.0], [0.0, 50.0, 30.0], [0.0, 0.0, 1.0]]
    cameras.write_text(json.dumps({"width": 80, "height": 60, "K": K}))
    filled = [argument.format(a=a, b=b, text=text, cameras=cameras) for argument in arguments]
    done = process("estimate", *filled, "--json")
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert complaint in done.err
    said = json.loads(done.out)
    assert said["status"] == "ERROR"
    assert said["error_code"] > 0
    assert f"error: {said['error']}\n" == done.err


def test_an_unknown_option_is_a_usage_error(photographs: tuple[Path, Path]) -> None:
    done = process("estimate", *photographs, "--bugdet", "3")
    assert done.code == 2
    assert "--bugdet" in done.err
    assert done.out == ""


def test_a_small_budget_is_an_answer(photographs: tuple[Path, Path]) -> None:
    done = process("estimate", *photographs, "--focal-px", "150", "--budget", "0.000001", "--json")
    assert done.code == 1
    said = json.loads(done.out)
    assert (said["status"], said["reason"]) == ("REJECTED", "BUDGET")
    assert said["error_code"] == 0
    assert said["rotation"] is said["direction"] is said["position_m"] is said["covariance"] is None


STUCK = """
import sys, time
from pose_bridge.bridge import Bridge
from pose_bridge.cli.main import main

def answer(self, question, control):
    while True:
        control.step("waiting")
        time.sleep(0.02)

Bridge.answer = answer
main()
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_cancels(photographs: tuple[Path, Path]) -> None:
    command = [sys.executable, "-c", STUCK, "estimate", *map(str, photographs), "--focal-px", "150", "--json"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stderr is not None
        assert running.stderr.readline().startswith("waiting (0 s of at most 10 s)")
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=20)
    assert running.returncode == 130
    assert "error: cancelled\n" in err
    assert json.loads(out) == {"status": "ERROR", "error_code": 10003, "error": "cancelled"}


# --- answers ---


def test_a_metric_answer_in_words(photographs: tuple[Path, Path], estimate: Callable[..., Ended]) -> None:
    done = estimate(accepted(Translation.METRIC), *photographs, "--focal-px", 150)
    assert done.code == 0
    sentence = " ".join(done.out.split())
    assert sentence.startswith(
        "The target camera is turned 60.0° ± 0.6° (to the right), "
        "and stands 2.24 m ± 0.10 m away, to the right and in front."
    )


@pytest.mark.parametrize(
    ("rotvec", "position", "says"),
    [
        ((0.5, 0.0, 0.0), (0.0, -1.0, 0.0), "(up), and stands above ("),
        ((-0.5, 0.0, 0.0), (0.0, 1.0, 0.0), "(down), and stands below ("),
        ((0.0, -0.5, 0.0), (-1.0, 0.0, 0.0), "(to the left), and stands to the left ("),
        ((0.0, 0.0, 0.5), (0.0, 0.0, -1.0), "(clockwise), and stands behind ("),
        ((0.0, 0.0, 0.0), (0.0, 0.0, 1.0), "not turned (± 0.6°), and stands in front ("),
    ],
)
def test_directions_in_words(
    photographs: tuple[Path, Path],
    estimate: Callable[..., Ended],
    rotvec: tuple[float, float, float],
    position: tuple[float, float, float],
    says: str,
) -> None:
    T = rigid.make(rotations.so3_exp(rotvec), position)

    def make(question: Question) -> Answer:
        return Answer(
            status=Status.ACCEPTED,
            translation=Translation.DIRECTION,
            _T_reference_target=T,
            _covariance=np.eye(6) * 1e-4,
            _direction_sigma_rad=0.02,
        )

    done = estimate(make, *photographs, "--focal-px", 150)
    assert done.code == 0
    assert says in " ".join(done.out.split())


def test_a_no_in_words(photographs: tuple[Path, Path], estimate: Callable[..., Ended]) -> None:
    done = estimate(rejected, *photographs, "--focal-px", 150)
    assert done.code == 1
    text = " ".join(done.out.split())
    assert text.startswith("No pose: the two sides fit together in more than one way.")
    assert "a rival has 31 tracks of 42" in text
    assert "What would help: " in text
    assert "quaternion" not in text


def test_less_than_was_asked_for_is_no_success(
    photographs: tuple[Path, Path], estimate: Callable[..., Ended]
) -> None:
    make = accepted(Translation.DIRECTION, Reason.NO_SCALE)
    done = estimate(make, *photographs, "--focal-px", 150, "--require", "metric")
    assert done.code == 1
    assert "You asked for metres, which cannot be told" in " ".join(done.out.split())
    assert estimate(make, *photographs, "--focal-px", 150, "--require", "direction").code == 0


@pytest.mark.parametrize("translation", list(Translation))
def test_json_holds_what_is_known_and_null_for_the_rest(
    photographs: tuple[Path, Path], estimate: Callable[..., Ended], translation: Translation
) -> None:
    done = estimate(accepted(translation), *photographs, "--focal-px", 150, "--json")
    said = json.loads(done.out, parse_constant=pytest.fail)
    assert done.code == (1 if translation is Translation.UNDEFINED else 0)
    assert done.out.count("\n") == 1
    assert said["status"] == "ACCEPTED"
    assert said["translation"] == translation.name
    assert said["rotation"]["quat_xyzw"] == pytest.approx([0.0, 0.5, 0.0, math.sqrt(0.75)])
    assert (said["direction"] is None) == (translation is Translation.UNDEFINED)
    assert (said["direction_sigma_deg"] is None) == (translation is Translation.UNDEFINED)
    assert (said["position_m"] is None) == (translation is not Translation.METRIC)
    assert (said["covariance"] is None) == (translation is not Translation.METRIC)
    assert said["evidence"]["features"] == {"parallax_deg": 4.0, "unknown": None}
    assert said["scale_sigma"] is None
    assert set(said["cameras"]) == {"a", "b"}


def test_json_of_a_no_has_no_numbers(photographs: tuple[Path, Path], estimate: Callable[..., Ended]) -> None:
    said = json.loads(estimate(rejected, *photographs, "--focal-px", 150, "--json").out)
    assert (said["status"], said["reason"], said["error_code"]) == ("REJECTED", "AMBIGUOUS", 0)
    for name in ("rotation", "direction", "position_m", "covariance", "probability", "elapsed_s"):
        assert said[name] is None
    assert said["cameras"] == {}
    assert said["evidence"]["tracks"] == 80


def test_options_reach_the_question(photographs: tuple[Path, Path], estimate: Callable[..., Ended]) -> None:
    asked: list[Question] = []

    def make(question: Question) -> Answer:
        asked.append(question)
        return rejected(question)

    a, b = photographs
    (a.parent / "near").mkdir()
    for name in ("c", "d"):
        cv2.imwrite(str(a.parent / "near" / f"{name}.png"), np.zeros((120, 160, 3), np.uint8))
    options = [
        "--require",
        "metric",
        "--max-stage",
        "register",
        "--budget",
        "2.5",
        "--min-probability",
        "0.5",
    ]
    context = [
        "--reference-context",
        a.parent / "near" / "c.*",
        "--target-context",
        a.parent / "near" / "d.png",
    ]
    estimate(make, a, b, "--focal-px", 150, "--seed", 7, *options, *context)
    estimate(make, a, b, "--focal-px", 150)
    told, plain = asked
    assert (told.require.name, told.max_stage.name, told.seed) == ("METRIC", "REGISTER", 7)
    assert (told.budget_s, told.min_probability) == (2.5, 0.5)
    assert [view.id for view in (*told.reference_context, *told.target_context)] == ["c", "d"]
    bare = Question(reference=plain.reference, target=plain.target)
    for name in ("require", "max_stage", "seed", "budget_s", "min_probability"):
        assert getattr(plain, name) == getattr(bare, name)


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (NoEstimateError("nothing to stand by"), 2, "error: nothing to stand by\n"),
        (CancelledError("enough"), 130, "error: cancelled\n"),
        (ZeroDivisionError("ours"), 2, "error: unexpected ZeroDivisionError: ours; run with --verbose"),
    ],
)
def test_errors_of_the_bridge(
    photographs: tuple[Path, Path], estimate: Callable[..., Ended], error: Exception, code: int, says: str
) -> None:
    def make(question: Question) -> Answer:
        raise error

    done = estimate(make, *photographs, "--focal-px", 150, "--json")
    assert done.code == code
    assert says in done.err
    assert "Traceback" not in done.err
    assert json.loads(done.out)["status"] == "ERROR"
    assert "Traceback" in estimate(make, *photographs, "--focal-px", 150, "--verbose").err


def test_poses_need_a_calibration(photographs: tuple[Path, Path], estimate: Callable[..., Ended]) -> None:
    done = estimate(rejected, *photographs, "--focal-px", 150, "--poses", "both")
    assert done.code == 2
    assert "add --cameras" in done.err


# --- figures ---


@pytest.mark.parametrize(
    "make",
    [*(accepted(translation) for translation in Translation), rejected],
    ids=[*(translation.name for translation in Translation), "rejected"],
)
def test_every_kind_of_answer_can_be_drawn(
    photographs: tuple[Path, Path], estimate: Callable[..., Ended], tmp_path: Path, make: Make
) -> None:
    done = estimate(make, *photographs, "--focal-px", 150, "--figure", tmp_path / "figure.png", "--json")
    assert json.loads(done.out)["error_code"] == 0
    drawn = cv2.imread(str(tmp_path / "figure.png"))
    assert drawn is not None
    assert min(drawn.shape[:2]) > 400
    assert drawn.std() > 10


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("figure.xyz", "the ending must be one of"),
        ("folder.png", "cannot be written"),
        ("no/a.png", "no folder"),
    ],
)
def test_a_figure_that_cannot_be_written_is_refused_first(
    photographs: tuple[Path, Path], estimate: Callable[..., Ended], tmp_path: Path, name: str, says: str
) -> None:
    (tmp_path / "folder.png").mkdir()
    make: Any = pytest.fail
    done = estimate(make, *photographs, "--focal-px", 150, "--figure", tmp_path / name)
    assert done.code == 2
    assert says in done.err


def test_real_photographs_can_be_drawn(fox: Path, estimate: Callable[..., Ended], tmp_path: Path) -> None:
    photos = [fox / "images" / name for name in ("0025.jpg", "0042.jpg")]
    figure = tmp_path / "figure.png"
    make = accepted(Translation.METRIC)
    done = estimate(make, *photos, "--cameras", fox / "cameras.json", "--figure", figure)
    assert done.code == 0
    assert cv2.imread(str(figure)) is not None
