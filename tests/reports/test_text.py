from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mismatchscope.reports.text import UNKNOWN, count, estimate, number, setting, share


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, UNKNOWN),
        (math.nan, UNKNOWN),
        (math.inf, "∞"),
        (-math.inf, "-∞"),
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (24576, "24,576"),
        (0.1842, "0.184"),
        (0.002131, "0.00213"),
        (0.000209, "2.09e-4"),
        (-0.0034, "-0.00340"),
        (1.000213, "1.00021"),
        (0.99874, "0.9987"),
        (1234.56, "1,235"),
        (3.2e9, "3.20e9"),
    ],
)
def test_number_keeps_the_digits_that_carry_meaning(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("figures", "text"),
    [
        ((0.002131, 0.001882, 0.002394), "0.00213 [0.00188, 0.00239]"),
        ((0.001441, 0.001410, 0.001473), "0.00144 [0.00141, 0.00147]"),
        ((1.000021, 0.999907, 1.000134), "1.00002 [0.99991, 1.00013]"),
        ((-0.0034, -0.0121, 0.0052), "-0.0034 [-0.0121, 0.0052]"),
        ((2.09e-4, 1.71e-4, 2.48e-4), "2.09e-4 [1.71e-4, 2.48e-4]"),
        ((2e-6, -0.5, 0.5), "2.00e-6 [-0.50, 0.50]"),
        ((0.5, None, None), "0.500"),
        ((0.5, None, 0.7), "0.500 [–, 0.700]"),
        ((0.0, 0.0, 0.0), "0 [0, 0]"),
        ((0.1, 0.1 - 3e-16, 0.1 + 3e-16), "0.100 [0.100, 0.100]"),
        ((1.0, 1 - 1e-7, 1 + 1e-7), "1.0000000 [0.9999999, 1.0000001]"),
        ((math.inf, 0.1, math.inf), "∞ [0.100, ∞]"),
        ((None, 0.1, 0.2), "0.100 – 0.200"),
        ((None, 0.1, None), "≥ 0.100"),
        ((None, None, None), UNKNOWN),
    ],
)
def test_estimate_rounds_to_the_width_of_the_interval(figures: tuple[float | None, ...], text: str) -> None:
    assert estimate(*figures) == text


@given(st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: 1e-300 < abs(x) < 1e300))
def test_number_is_never_off_by_more_than_half_a_percent(value: float) -> None:
    assert float(number(value).replace(",", "")) == pytest.approx(value, rel=0.0051)


@given(st.floats(0, 1))
def test_share_never_rounds_to_none_or_all(value: float) -> None:
    text = share(value)
    if 1e-7 < value < 1 - 1e-7:
        assert text not in ("0 %", "100 %")


@given(st.tuples(*[st.floats(-1e9, 1e9)] * 3))
def test_estimate_never_shows_a_nonzero_end_as_zero(figures: tuple[float, float, float]) -> None:
    low, value, high = sorted(figures)
    shown = estimate(value, low, high).replace("[", "").replace("]", "").replace(", ", " ").replace(",", "").split()
    for figure, text in zip((value, low, high), shown, strict=True):
        assert (float(text) == 0) == (figure == 0)


def test_settings_are_shown_as_they_were_typed() -> None:
    assert [setting(x) for x in (2.0, 0.95, 1e-4, 9.999999999999999e-06)] == ["2", "0.95", "0.0001", "1e-05"]


def test_count_knows_the_singular() -> None:
    assert (count(1, "prompt"), count(0, "token"), count(2048, "token")) == ("1 prompt", "0 tokens", "2,048 tokens")
