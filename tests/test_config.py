# SPDX-License-Identifier: Apache-2.0
import dataclasses
import math
import typing
from collections.abc import Iterator

import pytest
import yaml

from pose_bridge.config import Config, to_yaml
from pose_bridge.errors import ConfigError


def every_setting() -> Iterator[tuple[str, type, dataclasses.Field]]:
    for group, kind in typing.get_type_hints(Config).items():
        for item in dataclasses.fields(kind):
            yield group, kind, item


SETTINGS = [pytest.param(*found, id=f"{found[0]}.{found[2].name}") for found in every_setting()]
NUMBERS = [found for found in SETTINGS if found.values[2].metadata["low"] is not None]


def kind_of(group: type, item: dataclasses.Field) -> type:
    return typing.get_type_hints(group)[item.name]


@pytest.mark.parametrize(("group", "kind", "item"), SETTINGS)
def test_every_setting_says_what_it_is(group: str, kind: type, item: dataclasses.Field) -> None:
    assert len(item.metadata["description"]) > 10
    assert kind.__doc__
    assert isinstance(getattr(getattr(Config(), group), item.name), kind_of(kind, item))


@pytest.mark.parametrize(("group", "kind", "item"), NUMBERS)
def test_ranges_hold_at_both_ends(group: str, kind: type, item: dataclasses.Field) -> None:
    low, high = item.metadata["low"], item.metadata["high"]
    assert low < high
    assert low <= item.default <= high
    step = 1 if kind_of(kind, item) is int else 1e-6 * (high - low)
    for value in (low, high):
        value = kind_of(kind, item)(value)
        assert getattr(kind(**{item.name: value}), item.name) == value
    for value in (low - step, high + step):
        with pytest.raises(ConfigError, match=f"{item.name} must lie in .*got"):
            kind(**{item.name: value})


@pytest.mark.parametrize(("group", "kind", "item"), NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "5", None, [1], True, 2 + 0j], ids=str)
def test_what_is_not_a_number_is_refused(
    group: str, kind: type, item: dataclasses.Field, value: object
) -> None:
    with pytest.raises(ConfigError, match=item.name):
        kind(**{item.name: value})


@pytest.mark.parametrize(("group", "kind", "item"), NUMBERS)
def test_whole_numbers(group: str, kind: type, item: dataclasses.Field) -> None:
    """A fraction is no count; a whole number is a fine fraction."""
    if kind_of(kind, item) is int:
        with pytest.raises(ConfigError, match="type int"):
            kind(**{item.name: float(item.default)})
    else:
        whole = math.ceil(item.metadata["low"])
        if whole <= item.metadata["high"]:
            assert getattr(kind(**{item.name: whole}), item.name) == whole


def test_unknown_names_are_refused() -> None:
    for values, what in (
        ({"sfm": {"max_second": 3.0}}, "max_second"),
        ({"smf": {"max_seconds": 3.0}}, "smf"),
        ({"sfm": 3.0}, "sfm"),
        ({"sfm": None}, "sfm"),
        ({3: {}}, "3"),
    ):
        with pytest.raises(ConfigError, match=what):
            Config.from_dict(values)


def test_what_is_not_named_keeps_its_default() -> None:
    made = Config.from_dict({"sfm": {"max_seconds": 3.0}, "bridge": {}})
    assert made.sfm.max_seconds == 3.0
    assert dataclasses.replace(made, sfm=Config().sfm) == Config()
    assert Config.from_dict({}) == Config()


def test_a_dictionary_there_and_back() -> None:
    changed = Config.from_dict({"features": {"ratio": 0.7}, "context": {"max_views": 5}})
    assert Config.from_dict(changed.to_dict()) == changed != Config()


def test_yaml_there_and_back() -> None:
    changed = Config.from_dict({"features": {"ratio": 0.7}, "scale": {"odometry_sigma": 0.0001}})
    for config in (Config(), changed):
        text = to_yaml(config)
        assert Config.from_dict(yaml.safe_load(text)) == config
        for _, _, item in every_setting():
            assert item.metadata["description"] in text


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().sfm.max_seconds = 3.0  # type: ignore[misc]


def test_a_part_of_a_video_has_no_more_views_than_the_video() -> None:
    with pytest.raises(ConfigError, match="subset_views is 30"):
        Config.from_dict({"generated": {"subset_views": 30}, "ltx": {"num_frames": 9}})
