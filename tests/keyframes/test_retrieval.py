# SPDX-License-Identifier: Apache-2.0
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from keyframe_samples import keyframe, planar, texture

from pose_bridge.config import FeaturesConfig, KeyframesConfig, ViewsConfig
from pose_bridge.features import FeatureStore
from pose_bridge.geometry.cameras import Camera
from pose_bridge.keyframes import sight
from pose_bridge.keyframes.keyframe import Keyframe
from pose_bridge.keyframes.retrieval import Retriever, Vlad
from pose_bridge.photographs.calibration import read_cameras
from pose_bridge.photographs.reading import read_view
from pose_bridge.views import View

CAMERA = Camera.from_focal_px(150.0, 160, 120)
SETTINGS = KeyframesConfig()


def store() -> FeatureStore:
    return FeatureStore(FeaturesConfig(max_features=200, cache_views=200), ViewsConfig())


def posed(name: object, T_map_base: np.ndarray, image: np.ndarray, **known: object) -> Keyframe:
    return keyframe(name, T_map_base=T_map_base, image=image, camera=CAMERA, **known)


def view(name: str, image: np.ndarray) -> View:
    return View(id=name, image=image, camera=CAMERA)


def picture(seed: int) -> np.ndarray:
    return texture(seed, 120, 160)


def shifted(image: np.ndarray, by_px: int = 12) -> np.ndarray:
    return np.roll(image, by_px, axis=1)


def places(count: int) -> list[Keyframe]:
    """A row of places three metres apart, each with two pictures of the same wall."""
    return [
        posed(f"{place}{half}", planar(3.0 * place, 0.1 * number), shifted(picture(place), 5 * number))
        for place in range(count)
        for number, half in enumerate("ab")
    ]


@pytest.fixture(scope="module")
def row() -> list[Keyframe]:
    return places(6)


def test_the_place_that_it_sees_comes_first(row: list[Keyframe]) -> None:
    retriever = Retriever(store(), SETTINGS)
    for place in (0, 3, 5):
        first = retriever.candidates([view("v", shifted(picture(place)))], row, 4)[0]
        assert first.keyframe.id[0] == str(place)
        assert first.view_id == "v"
        assert first.score > 50


def test_who_is_asked_to_stop_stops(row: list[Keyframe]) -> None:
    class StopError(Exception):
        pass

    def check() -> None:
        raise StopError

    with pytest.raises(StopError):
        Retriever(store(), SETTINGS).candidates([view("v", picture(1))], row, 2, check)


def test_one_of_each_place_and_the_view_that_shows_it(row: list[Keyframe]) -> None:
    views = [view("none", picture(50)), view("five", shifted(picture(5))), view("two", shifted(picture(2)))]
    found = Retriever(store(), SETTINGS).candidates(views, row, 5)
    assert {(c.keyframe.id[0], c.view_id) for c in found[:2]} == {("5", "five"), ("2", "two")}
    assert len({c.keyframe.id[0] for c in found}) == 5


@pytest.mark.parametrize("seen", ["blank", "elsewhere"])
def test_where_nothing_looks_alike_the_map_is_covered(seen: str) -> None:
    """A robot that turned in place in two corners of a room, and then sees what is in neither."""
    around = [
        posed(f"{corner}_{turn}", planar(4.0 * corner, 0, 45 * turn), picture(100 * corner + turn))
        for corner in range(2)
        for turn in range(8)
    ]
    image = picture(999) if seen == "elsewhere" else np.zeros_like(picture(0))
    found = Retriever(store(), SETTINGS).candidates([view("v", image)], around, 8)
    for corner in "01":
        turns = sorted(int(c.keyframe.id[2:]) for c in found if c.keyframe.id[0] == corner)
        assert len(turns) >= 3
        assert np.diff([*turns, turns[0] + 8]).max() * 45 <= 180


def test_a_blank_view_is_answered_too(row: list[Keyframe]) -> None:
    found = Retriever(store(), SETTINGS).candidates([view("v", np.zeros_like(picture(0)))], row, 3)
    assert len({c.keyframe.id[0] for c in found}) == 3
    assert all(c.score == 0.0 for c in found)


def test_a_map_of_blank_pictures_is_answered_too() -> None:
    blank = [posed(n, planar(n, 0), np.zeros_like(picture(0))) for n in range(4)]
    found = Retriever(store(), SETTINGS).candidates([view("v", picture(0))], blank, 9)
    assert {c.keyframe.id for c in found} == {"0", "1", "2", "3"}


@pytest.mark.parametrize(("views", "map_size", "count"), [(0, 3, 3), (1, 0, 3), (1, 3, 0)])
def test_nothing_to_choose(views: int, map_size: int, count: int) -> None:
    asked = [view("v", picture(0))] * views
    assert Retriever(store(), SETTINGS).candidates(asked, places(map_size), count) == []


def test_never_more_than_there_are(row: list[Keyframe]) -> None:
    found = Retriever(store(), SETTINGS).candidates([view("v", picture(0))], row[:3], 10)
    assert len({c.keyframe.id for c in found}) == len(found) == 3


def test_pictures_that_are_too_small_are_left_out(row: list[Keyframe]) -> None:
    small = texture(0, 40, 40)
    tiny = View(id="tiny", image=small, camera=Camera.from_focal_px(40.0, 40, 40))
    speck = keyframe("speck", image=small, camera=tiny.camera, T_map_base=planar(0, 0))
    retriever = Retriever(store(), SETTINGS)
    assert retriever.candidates([tiny], row, 3) == []
    found = retriever.candidates([tiny, view("v", picture(1))], [speck, *row], 20)
    assert len(found) == len(row)
    assert {c.view_id for c in found} == {"v"}


def test_the_same_question_has_the_same_answer(row: list[Keyframe]) -> None:
    views = [view("a", picture(70)), view("b", shifted(picture(4)))]

    def answer(retriever: Retriever) -> list[tuple[str, float, str]]:
        return [(c.keyframe.id, c.score, c.view_id) for c in retriever.candidates(views, row, 6)]

    retriever = Retriever(store(), SETTINGS)
    assert answer(retriever) == answer(retriever) == answer(Retriever(store(), SETTINGS))


class Counting:
    """Describes a picture by its mean colour."""

    def __init__(self) -> None:
        self.described: list[str] = []
        self.outgrown = False

    def learn(self, views: Sequence[View]) -> bool:
        return self.outgrown

    def describe(self, view: View) -> np.ndarray:
        self.described.append(view.id)
        colour = view.image.reshape(-1, 3).mean(axis=0)
        return (colour / max(np.linalg.norm(colour), 1e-9)).astype(np.float32)


def test_a_picture_of_the_map_is_described_once() -> None:
    counting = Counting()
    retriever, row = Retriever(store(), SETTINGS, counting), places(4)
    retriever.prepare(row[:5])
    retriever.candidates([view("v", picture(0))], row, 2)
    retriever.candidates([view("v", picture(0))], row[:2], 2)
    retriever.prepare(row)
    assert sorted(n for n in counting.described if n != "v") == sorted(k.id for k in row)
    changed = posed(row[0].id, planar(0, 0), picture(33))
    retriever.prepare([changed, *row[1:]])
    assert counting.described[-1] == row[0].id
    counting.outgrown = True
    before = len(counting.described)
    retriever.prepare(row)
    assert len(counting.described) == before + len(row)


def test_a_describer_of_ones_own_decides_what_is_matched() -> None:
    red, blue = (np.zeros((120, 160, 3), np.uint8) for _ in range(2))
    red[..., 0], blue[..., 2] = 200, 200
    row = [posed("red", planar(0, 0), red), posed("blue", planar(5, 0), blue)]
    found = Retriever(store(), SETTINGS, Counting()).candidates([view("v", blue)], row, 2)
    assert {c.keyframe.id: round(c.score, 2) for c in found} == {"blue": 1.0, "red": 0.0}


def test_one_index_for_many_threads(row: list[Keyframe]) -> None:
    retriever, start = Retriever(store(), SETTINGS), threading.Barrier(4)

    def ask(place: int) -> str:
        start.wait(10)
        retriever.prepare(row[: 4 * place])
        return retriever.candidates([view("v", shifted(picture(place)))], row, 2)[0].keyframe.id[0]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == ["0", "1", "2", "3"]


# --- VLAD


def test_a_vector_says_how_alike_pictures_are() -> None:
    vlad = Vlad(store())
    views = [view(str(n), picture(n)) for n in range(6)]
    assert vlad.learn(views)
    vectors = np.array([vlad.describe(one) for one in views])
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    alike = vectors @ vlad.describe(view("v", shifted(picture(2))))
    assert alike.argmax() == 2
    assert alike[2] > 2 * np.delete(alike, 2).max()


def test_a_codebook_is_learned_anew_for_a_map_twice_as_large() -> None:
    vlad = Vlad(store())
    views = [view(str(n), picture(n)) for n in range(6)]
    assert not vlad.learn([view("blank", np.zeros_like(picture(0)))])
    assert not vlad.describe(views[0]).any()
    assert vlad.learn(views[:3])
    assert not vlad.learn(views[:5])
    assert vlad.learn(views[:6])
    assert not vlad.learn(views[:2])


# --- photographs


def test_neighbours_among_photographs(fox: Path) -> None:
    """Asked with one photograph, the rest being the map, what it finds looks in nearly the same direction."""
    calibration = read_cameras(fox / "cameras.json")
    scale = 0.5
    photographs = []
    for path in sorted((fox / "images").glob("*.jpg")):
        whole = read_view(path, calibration, with_pose=True)
        small = cv2.resize(whole.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        photographs.append(
            keyframe(
                path.stem,
                image=small,
                camera=whole.camera.resize(small.shape[1], small.shape[0]),
                T_base_camera=np.eye(4),
                T_map_base=whole.T_side_camera,
            )
        )
    assert len(photographs) == 37
    retriever = Retriever(store(), SETTINGS)
    ahead = sight.stacked([photograph.T_map_camera for photograph in photographs])[:, :3, 2]
    angle_deg = np.degrees(np.arccos(np.clip(ahead @ ahead.T, -1.0, 1.0)))
    np.fill_diagonal(angle_deg, np.inf)
    for asked in range(0, 37, 4):
        rest = photographs[:asked] + photographs[asked + 1 :]
        found = retriever.candidates([photographs[asked].view()], rest, 6)
        off_deg = [angle_deg[asked, photographs.index(c.keyframe)] for c in found]
        assert off_deg[0] < max(15.0, 2.0 * angle_deg[asked].min())
        taken = [photographs.index(c.keyframe) for c in found]
        between_deg = angle_deg[np.ix_(taken, taken)]
        assert between_deg[np.isfinite(between_deg)].max() > 20.0  # not all of one corner
