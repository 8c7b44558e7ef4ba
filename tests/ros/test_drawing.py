# SPDX-License-Identifier: Apache-2.0
import dataclasses

import cv2
import numpy as np
import pytest
from installed import require_ros
from robot_world import MAP, SEEN, keyframe, standing
from synthetic import evidence

from pose_bridge.config import FramesConfig
from pose_bridge.geometry import rigid, rotations
from pose_bridge.geometry.cameras import Camera
from pose_bridge.relocalization import Attempt, Hypothesis
from pose_bridge.views import Answer, Evidence, Question, Reason, Stage, Status, View

require_ros()

from rclpy.serialization import serialize_message  # noqa: E402
from visualization_msgs.msg import Marker  # noqa: E402

from pose_bridge.ros import drawing, images, poses  # noqa: E402

FRAMES = FramesConfig(map="the_map", odom="the_odom")
NAMES = ("mapped", "unmapped", "hypotheses", "uncertainty", "words")


def shown(keyframes, hypotheses=(), epoch=1) -> dict[str, list[Marker]]:
    """Markers by namespace, as a display has them that showed others before."""
    message = drawing.markers(keyframes, hypotheses, FRAMES, epoch)
    serialize_message(message)
    first, *rest = message.markers
    assert first.action == Marker.DELETEALL
    assert all(marker.action == Marker.ADD for marker in rest)
    assert len({(marker.ns, marker.id) for marker in rest}) == len(rest)
    return {name: [marker for marker in rest if marker.ns == name] for name in NAMES}


def ends(marker: Marker) -> np.ndarray:
    points = np.array([[point.x, point.y, point.z] for point in marker.points])
    return points.reshape(-1, 2, 3)


def place(T_map_base, covariance=None, agreeing=1) -> Hypothesis:
    answer = Answer(
        status=Status.ACCEPTED,
        probability=0.93,
        _T_reference_target=np.eye(4),
        _covariance=np.eye(6),
    )
    attempt = Attempt(
        question=Question(reference=MAP[0].view(), target=SEEN[0].view()),
        answer=answer,
        keyframe=MAP[0],
        view=SEEN[0],
        T_map_base=T_map_base,
        covariance=np.eye(6) if covariance is None else covariance,
        map_ids=("m0",),
        view_ids=("v0",),
    )
    questions = [Question(reference=MAP[0].view(), target=seen.view()) for seen in SEEN[:agreeing]]
    return Hypothesis(tuple(dataclasses.replace(attempt, question=question) for question in questions))


def test_keyframes_stand_where_they_are_known_to_be():
    elsewhere = keyframe("e", 40, 2, standing(0.0, 0.0, 0.0), False)
    both = keyframe("b", 41, 1, standing(1.0, 0.0, 0.0), True)
    markers = shown([*MAP[:3], *SEEN[:2], elsewhere, both])
    [mapped], [unmapped] = markers["mapped"], markers["unmapped"]
    assert (mapped.header.frame_id, unmapped.header.frame_id) == ("the_map", "the_odom")
    assert len(ends(mapped)) == 4 * 8
    assert len(ends(unmapped)) == 2 * 8
    assert mapped.color != unmapped.color
    np.testing.assert_allclose(ends(mapped)[8, 0], MAP[1].T_map_camera[:3, 3])
    np.testing.assert_allclose(ends(unmapped)[0, 0], SEEN[0].T_odom_camera[:3, 3])


def test_a_frustum_is_what_the_camera_sees():
    [mapped] = shown([MAP[2]])["mapped"]
    T_camera_map = rigid.inverse(MAP[2].T_map_camera)
    rays, rim = np.split(rigid.transform(T_camera_map, ends(mapped).reshape(-1, 3)).reshape(-1, 2, 3), 2)
    np.testing.assert_allclose(rays[:, 0], 0.0, atol=1e-12)
    corners = MAP[2].camera.project(rays[:, 1])
    np.testing.assert_allclose(corners, [[0, 0], [96, 0], [96, 72], [0, 72]], atol=1e-9)
    np.testing.assert_allclose(rays[:, 1, 2], drawing.FRUSTUM_DEPTH_M)
    np.testing.assert_allclose(rim[:, 0], rays[:, 1])
    np.testing.assert_allclose(rim[:, 1], np.roll(rays[:, 1], -1, axis=0))


def test_a_keyframe_without_a_place_is_not_drawn():
    known = {"image": MAP[0].image, "camera": MAP[0].camera, "camera_id": "c", "stamp_ns": 0, "epoch": 1}
    lost = type(MAP[0])(id="lost", **known)
    blind = type(MAP[0])(id="blind", T_odom_base=np.eye(4), T_map_base=np.eye(4), **known)
    markers = shown([lost, blind])
    assert not markers["mapped"][0].points
    assert not markers["unmapped"][0].points


def test_hypotheses_are_drawn_with_the_best_one_opaque():
    best, other = place(standing(2.0, 1.0, 30.0), agreeing=3), place(standing(-1.0, 0.0, 0.0))
    markers = shown([], [best, other])
    first, second = markers["hypotheses"]
    assert first.color.a == 1.0 > second.color.a > 0.0
    np.testing.assert_allclose(poses.to_matrix(first.pose), best.best.T_map_base, atol=1e-9)
    assert [marker.text for marker in markers["words"]] == ["0.93, 3 agree", "0.93, 1 agree"]
    assert {marker.header.frame_id for name in NAMES[2:] for marker in markers[name]} == {"the_map"}
    assert markers["uncertainty"][0].color.a > markers["uncertainty"][1].color.a > 0.0
    assert shown([], [])["hypotheses"] == []


def test_the_ellipse_holds_95_percent():
    rng = np.random.default_rng(3)
    R = rotations.so3_exp([0.0, 0.0, 0.7])
    covariance = np.diag([0.01] * 6)
    covariance[:3, :3] = R @ np.diag([0.3**2, 0.1**2, 0.2**2]) @ R.T
    T_map_base = standing(2.0, 1.0, 30.0)
    T, widths_m = drawing.ellipse_on_floor(T_map_base, covariance)
    samples = T_map_base[:2, 3] + rng.multivariate_normal(np.zeros(2), covariance[:2, :2], 20000)
    inside = rigid.transform(rigid.inverse(T), np.column_stack([samples, np.zeros(len(samples))]))[:, :2]
    share = (np.square(inside / (widths_m / 2.0)).sum(axis=1) <= 1.0).mean()
    assert share == pytest.approx(0.95, abs=0.01)
    assert widths_m == pytest.approx(2.0 * drawing.ELLIPSE_SIGMAS * np.array([0.3, 0.1]))
    assert drawing.ellipse_on_floor(T_map_base, np.zeros((6, 6)))[1].min() > 0.0


def test_there_is_an_end_to_what_is_drawn(monkeypatch):
    monkeypatch.setattr(drawing, "MOST_KEYFRAMES", 2)
    markers = shown(MAP[:5], [place(np.eye(4))] * 30)
    np.testing.assert_allclose(ends(markers["mapped"][0])[0, 0], MAP[3].T_map_camera[:3, 3])
    assert len(ends(markers["mapped"][0])) == 2 * 8
    assert len(markers["hypotheses"]) == drawing.MOST_HYPOTHESES


def view(name: str, width: int, height: int, colour: tuple[int, int, int]) -> View:
    image = np.full((height, width, 3), colour, np.uint8)
    return View(
        id=name, image=image, camera=Camera.from_focal_px(300.0, width, height), stamp_ns=len(name) * 10**9
    )


RED, GREEN, BLUE, GREY = (200, 0, 0), (0, 200, 0), (0, 0, 200), (90, 90, 90)
REFERENCE, TARGET = view("reference", 320, 240, RED), view("target", 320, 240, GREEN)
NEAR, FAR = view("near", 640, 480, BLUE), view("far_away", 800, 1200, GREY)
QUESTION = Question(
    reference=REFERENCE, target=TARGET, reference_context=(NEAR,), target_context=(FAR,), seed=0
)
LINE = drawing.LINE_HEIGHT_PX


def linked(left: str, right: str, starts, stops) -> Evidence:
    return evidence(
        tracks=len(starts),
        reference_view_id=left,
        target_view_id=right,
        reference_points_px=np.array(starts, dtype=float).reshape(-1, 2),
        target_points_px=np.array(stops, dtype=float).reshape(-1, 2),
    )


def strip(answer: Answer) -> np.ndarray:
    message = drawing.strip(QUESTION, answer)
    serialize_message(message)
    return images.decode(message)


def rejected(found: Evidence | None = None, text: str = "too few tracks – only 3") -> Answer:
    return Answer.rejected(Reason.WEAK_BRIDGE, text, stage=Stage.CONTEXT, evidence=found)


def marks(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Where something else than the plain picture is, as (x, y) of blobs' centres."""
    other = (np.abs(pixels.astype(int) - colour).max(axis=2) > 60).astype(np.uint8)
    _, _, _, centres = cv2.connectedComponentsWithStats(other)
    return centres[1:]


def test_without_a_bridge_the_two_ends_are_shown():
    pixels = strip(rejected())
    assert pixels.shape == (240 + 2 * LINE, 640, 3)
    assert (pixels[LINE:-LINE, :320] == RED).all()
    assert (pixels[LINE:-LINE, 320:] == GREEN).all()
    for line in (pixels[:LINE, :320], pixels[:LINE, 320:], pixels[-LINE:]):
        assert line.max() == 255


def test_the_views_that_bridged_are_shown_at_one_height():
    message = drawing.strip(QUESTION, rejected(linked("near", "far_away", [], [])))
    assert (message.height, message.width) == (360 + 2 * LINE, 480 + 240)
    assert message.encoding == "rgb8"
    assert poses.from_stamp(message.header.stamp) == QUESTION.target.stamp_ns
    pixels = images.decode(message)
    assert (pixels[LINE:-LINE, :480] == BLUE).all()
    assert (pixels[LINE:-LINE, 480:] == GREY).all()


def test_the_tracks_are_where_the_features_were(monkeypatch):
    monkeypatch.setattr(drawing.cv2, "line", lambda *_: None)
    starts, stops = [(100.5, 60.5), (500.5, 400.5)], [(300.5, 900.5), (700.5, 200.5)]
    pixels = strip(rejected(linked("near", "far_away", starts, stops)))[LINE:-LINE]
    left, right = marks(pixels[:, :480], BLUE), marks(pixels[:, 480:], GREY)
    np.testing.assert_allclose(left + 0.5, np.array(starts) * 360 / 480, atol=0.6)
    by_height = np.array(stops)[::-1]
    np.testing.assert_allclose(right + 0.5, by_height * 360 / 1200, atol=0.6)
    for start, stop in zip(starts, stops, strict=True):
        x, y = (int(c * 360 / 480) for c in start)
        u, v = (int(c * 360 / 1200) for c in stop)
        assert (pixels[y, x] == pixels[v, 480 + u]).all()
    assert (pixels[45, 75] != pixels[300, 375]).any()


def test_tracks_are_tied_by_lines():
    pixels = strip(rejected(linked("near", "far_away", [(100.5, 60.5)], [(300.5, 900.5)])))
    crossed = np.flatnonzero((pixels[LINE:-LINE, 480] != GREY).any(axis=1))
    share = (480 - 75.4) / (480 + 90.1 - 75.4)
    assert len(crossed)
    assert np.abs(crossed - (45.4 + share * (270.1 - 45.4))).max() <= 2.0


def test_a_thousand_tracks_stay_readable(monkeypatch):
    points = np.random.default_rng(0).uniform(10.0, 400.0, (1000, 2))
    drawn = []
    monkeypatch.setattr(drawing.cv2, "circle", lambda canvas, *more: drawn.append(more))
    strip(rejected(linked("near", "far_away", points, points)))
    assert len(drawn) == 4 * drawing.MOST_POINTS


def test_evidence_of_unknown_views_shows_the_ends_alone():
    pixels = strip(rejected(linked("gone", "target", [(10.0, 10.0)], [(10.0, 10.0)])))
    assert (pixels[LINE:-LINE, :320] == RED).all()


def test_the_verdict_is_written_below():
    def accepted(probability):
        return Answer(
            status=Status.ACCEPTED,
            stage=Stage.CONTEXT,
            probability=probability,
            _T_reference_target=np.eye(4),
            _covariance=np.eye(6),
        )

    assert drawing._verdict(accepted(0.875)) == "ACCEPTED CONTEXT, probability 0.88"
    assert drawing._verdict(rejected(linked("a", "b", [(1, 1)], [(1, 1)]), "weak")) == (
        "REJECTED WEAK_BRIDGE, 1 tracks: weak"
    )
    lines = [strip(answer)[-LINE:] for answer in (accepted(0.9), accepted(0.8), rejected())]
    assert (lines[0] != lines[1]).any()
    assert (lines[0] != lines[2]).any()
