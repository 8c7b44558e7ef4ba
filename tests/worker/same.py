# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest


def assert_same(a: object, b: object, within: float = 0.0) -> None:
    """Equal to the last bit, or floats relatively within so much; and of the same type."""
    assert type(a) is type(b)
    if isinstance(a, np.ndarray):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        if within and a.dtype.kind == "f":
            np.testing.assert_allclose(a, b, rtol=within, atol=within)
        else:
            assert a.tobytes() == b.tobytes()
    elif dataclasses.is_dataclass(a):
        for field in dataclasses.fields(a):
            assert_same(getattr(a, field.name), getattr(b, field.name), within)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key], within)
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_same(one, other, within)
    elif isinstance(a, float) and within:
        assert a == pytest.approx(b, rel=within, nan_ok=True)
    else:
        assert a == b or (a != a and b != b)
