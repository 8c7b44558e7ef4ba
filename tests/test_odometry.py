# SPDX-License-Identifier: Apache-2.0
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pose_bridge.config import OdometryConfig, RigsConfig
from pose_bridge.errors import BadInputError
from pose_bridge.geometry import rigid, rotations
from pose_bridge.odometry import MapPoses, Odometry, drift_on_winding

S = 10**9


def at(x: float, yaw_deg: float = 0.0) -> np.ndarray:
    return rigid.make(rotations.so3_exp([0.0, 0.0, np.radians(yaw_deg)]), [x, 0.0, 0.0])


def driven(seconds: float = 10.0, hz: float = 20.0, **settings: float) -> Odometry:
    odometry = Odometry(OdometryConfig(**settings))
    for step in range(int(seconds * hz) + 1):
        assert odometry.add(int(step * S / hz), at(0.5 * step / hz, 20.0 * step / hz)) == ""
    return odometry


@given(st.floats(0.0, 10.0))
def test_between_reports(seconds: float) -> None:
    found = driven().at(int(seconds * S))
    assert found is not None
    assert found.epoch == 0
    np.testing.assert_allclose(found.T_odom_base, at(0.5 * seconds, 20.0 * seconds), atol=1e-3)


def test_ways_are_as_long_as_they_wind() -> None:
    found = driven(10.0).at(9 * S)
    assert found is not None
    np.testing.assert_allclose(found.way, [4.5, np.radians(180.0)], rtol=1e-3)
    odometry = driven(5.0)
    for step in range(1, 11):  # and back to where it began
        odometry.add(5 * S + step * S // 2, at(2.5 - 0.25 * step, 100.0))
    np.testing.assert_allclose(odometry.newest[1].way, [5.0, np.radians(100.0)], rtol=1e-3)
    odometry.break_off()
    odometry.add(20 * S, at(7.0))
    np.testing.assert_allclose(odometry.newest[1].way, 0.0)


def test_what_it_errs_by_grows_with_the_way() -> None:
    settings = RigsConfig(odometry_m=0.01, odometry_deg=1.0, odometry_share=0.1)
    place, turn = drift_on_winding(np.array([5.0, 0.0]), settings)
    assert np.degrees(np.sqrt(turn)) == pytest.approx(1.0)
    assert np.sqrt(place) == pytest.approx(np.hypot(np.hypot(0.01, 0.5), 5.0 * np.radians(1.0)))
    turned = drift_on_winding(np.array([5.0, 1.0]), settings)
    assert (turned > (place, turn)).all()


@pytest.mark.parametrize("stamp_ns", [-1, 10 * S + 1, 100 * S])
def test_what_is_not_known_is_none(stamp_ns: int) -> None:
    assert driven().at(stamp_ns) is None
    assert Odometry(OdometryConfig()).at(stamp_ns) is None
    assert Odometry(OdometryConfig()).newest is None


def test_a_gap_is_not_bridged_but_is_no_break() -> None:
    odometry = driven(1.0)
    assert odometry.add(3 * S, at(1.5, 60.0)) == ""
    assert odometry.at(2 * S) is None
    assert odometry.epoch == 0


@pytest.mark.parametrize(
    ("stamp_ns", "T", "says"),
    [
        (10 * S + S // 20, at(7.0, 200.0), "2.00 m"),
        (10 * S + S // 20, at(5.0, 20.0), "180 degrees"),
        (2 * S, at(5.0, 200.0), "clock"),
    ],
    ids=["jump", "turn", "clock"],
)
def test_breaks(stamp_ns: int, T: np.ndarray, says: str) -> None:
    odometry = driven()
    assert says in odometry.add(stamp_ns, T)
    assert odometry.epoch == 1
    newest = odometry.newest
    assert newest is not None
    assert newest[0] == stamp_ns
    assert newest[1].epoch == 1
    between = odometry.at((10 * S + stamp_ns) // 2)
    assert between is None


def test_a_late_report_is_no_break() -> None:
    odometry = driven()
    assert odometry.add(10 * S - S // 100, at(5.0, 200.0)) == ""
    assert odometry.epoch == 0
    assert odometry.at(4 * S) is not None


def test_somebody_says_so() -> None:
    odometry = driven()
    odometry.break_off()
    assert odometry.epoch == 1
    assert odometry.newest is None
    assert odometry.add(11 * S, at(70.0)) == ""  # nothing to break with
    assert odometry.epoch == 1
    known = odometry.at(5 * S)
    assert known is not None
    assert known.epoch == 0  # pictures taken before


def test_it_forgets() -> None:
    odometry = driven(10.0, history_s=2.0)
    assert odometry.at(7 * S) is None
    assert odometry.at(9 * S) is not None
    assert len(odometry._stamps_ns) == len(odometry._poses) <= 42


def test_not_a_pose() -> None:
    for T in (np.eye(3), np.full((4, 4), np.nan), 2 * np.eye(4)):
        odometry = driven(1.0)
        with pytest.raises(BadInputError):
            odometry.add(2 * S, T)
        assert odometry.epoch == 0


def test_threads() -> None:
    odometry = driven(1.0, history_s=1.0)
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            for step in range(2000):
                odometry.at(int(S * (1.0 + step / 1000)))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for step in range(1, 2000):
        odometry.add(S + step * 10**6, at(0.5 + 0.0005 * step, 20.0 + 0.02 * step))
    for thread in threads:
        thread.join()
    assert not failed


def test_where_odometry_lies_in_the_map() -> None:
    known = MapPoses(0, OdometryConfig(history_s=10.0))
    assert known.at(S) is None
    known.add(1 * S, at(1.0))
    known.add(3 * S, at(3.0))
    assert known.at(S - 1) is None
    for stamp_ns, x in ((1 * S, 1.0), (3 * S - 1, 1.0), (3 * S, 3.0), (100 * S, 3.0)):
        np.testing.assert_array_equal(known.at(stamp_ns), at(x))
    known.add(2 * S, at(2.0))  # somebody knows better, from an earlier time on
    np.testing.assert_array_equal(known.at(4 * S), at(2.0))


def test_what_is_said_of_the_map_does_not_pile_up() -> None:
    known = MapPoses(0, OdometryConfig(history_s=10.0))
    for second in range(100):
        known.add(second * S, at(float(second)))
    assert known.at(88 * S) is None
    np.testing.assert_array_equal(known.at(89 * S), at(89.0))
