from __future__ import annotations

import math
import re
import sys
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from mismatchscope.errors import MissingDependencyError
from mismatchscope.measures.results import Exceedance
from mismatchscope.reports.chart_fields import ChartData, Histogram, PositionBin, Scatter
from mismatchscope.reports.charts import Chart, draw_charts, ratio_label, ratio_ticks
from mismatchscope.reports.document import Report


def _with_figures(report: Report, **figures: object) -> Report:
    return report.model_copy(update={"figures": ChartData(**figures)})


def _chart(report: Report, name: str) -> str:
    return next(chart.svg for chart in draw_charts(report) if chart.name == name)


def _texts(svg: str) -> list[str]:
    return ["".join(element.itertext()) for element in ElementTree.fromstring(svg).iter("text")]


def test_every_chart_is_drawn_where_there_is_data(drawn: list[Chart]) -> None:
    assert [chart.name for chart in drawn] == [
        "exceedance",
        "ratios",
        "probabilities",
        "positions",
        "lengths",
    ]


def test_nothing_is_drawn_without_data(sampled: Report) -> None:
    assert draw_charts(sampled) == []


def test_svg_is_well_formed_and_finite(drawn: list[Chart]) -> None:
    for chart in drawn:
        root = ElementTree.fromstring(chart.svg)
        numbers = [root.get("viewBox"), *(e.get(key) for e in root.iter() for key in ("d", "x", "y", "transform"))]
        assert not re.search(r"nan|inf", " ".join(filter(None, numbers)), re.IGNORECASE)


def test_svg_needs_nothing_that_the_page_forbids(drawn: list[Chart]) -> None:
    for chart in drawn:
        root = ElementTree.fromstring(chart.svg)
        assert not [element for element in root.iter() if "style" in element.attrib or element.tag == "style"]
        assert not re.search(r"https?:|<image|<script|<!DOCTYPE", chart.svg)


def test_colours_belong_to_the_page(drawn: list[Chart]) -> None:
    page = {f"var(--{name})" for name in ("grid", "series", "second", "floor")}
    for chart in drawn:
        paints = {e.get(key) for e in ElementTree.fromstring(chart.svg).iter() for key in ("fill", "stroke")}
        assert paints <= page | {None, "none", "currentColor"}


def test_ids_are_unique_over_all_charts(drawn: list[Chart]) -> None:
    ids = [e.get("id") for chart in drawn for e in ElementTree.fromstring(chart.svg).iter() if e.get("id")]
    assert len(ids) == len(set(ids))


def test_every_reference_resolves(drawn: list[Chart]) -> None:
    for chart in drawn:
        ids = {e.get("id") for e in ElementTree.fromstring(chart.svg).iter()}
        assert set(re.findall(r"url\(#([^)]+)\)", chart.svg)) <= ids
        assert set(re.findall(r'href="#([^"]+)"', chart.svg)) <= ids


def test_every_chart_has_a_name_and_a_description_for_screen_readers(drawn: list[Chart]) -> None:
    for chart in drawn:
        root = ElementTree.fromstring(chart.svg)
        assert root.get("role") == "img"
        assert root.findtext("title")
        assert root.findtext("desc")


def test_text_stays_text(drawn: list[Chart]) -> None:
    assert {"τ", "share with TV > τ", "floor, tokens"} <= set(_texts(drawn[0].svg))


def test_the_floor_is_drawn_only_where_it_was_measured(drawn: list[Chart], topk: Report) -> None:
    assert all("floor" in " ".join(_texts(chart.svg)) for chart in drawn)
    assert all("floor" not in " ".join(_texts(chart.svg)) for chart in draw_charts(topk))


def test_drawing_twice_gives_the_same_bytes(full: Report, drawn: list[Chart]) -> None:
    assert draw_charts(full) == drawn


@pytest.mark.parametrize("decades", [1e-9, 1e-4, 0.01, 0.2, 0.3, 0.9, 4.0, 60.0])
def test_ratio_axis_has_a_few_distinct_labels_at_any_width(decades: float) -> None:
    low, high = 10.0**-decades, 10.0**decades
    ticks = ratio_ticks(low, high)
    labels = [ratio_label(tick) for tick in ticks]
    assert 2 <= len(labels) <= 9
    assert len(labels) == len(set(labels))
    assert all(low <= tick <= high for tick in ticks)


def test_ratio_labels_near_one_show_the_distance() -> None:
    assert [ratio_label(x) for x in (1.0, 1.00002, 1 - 5e-7, 0.95, 1e-4)] == [
        "1",
        "1+2e-5",
        "1-5e-7",
        "0.95",
        "0.0001",
    ]


def test_ratios_beyond_what_a_float_holds_are_drawn(full: Report) -> None:
    histogram = Histogram(edges=[0.0, 1e-200, 1.0, 1e200, math.inf], counts=[1, 2, 3, 1])
    svg = _chart(_with_figures(full, ratio_histogram=histogram), "ratios")
    assert not re.search(r"\bnan\b|\binf\b", svg)


def test_an_axis_within_one_decade_still_has_ticks(full: Report) -> None:
    bins = [PositionBin(low=0, high=7, n=10, mean=0.0021, max=0.0043)]
    labels = _texts(_chart(_with_figures(full, tv_by_position=bins), "positions"))
    assert {"0.001", "0.01"} <= set(labels)


def test_a_curve_of_lower_ends_says_so_and_shows_no_limit(full: Report) -> None:
    nothing = dict.fromkeys(("tokens", "tokens_upper", "prompts", "prompts_upper"))
    curve = tuple(replace(point, **nothing) for point in full.alpha1.exceedance)
    report = full.model_copy(update={"alpha1": replace(full.alpha1, exceedance=curve)})
    drawn, bounded = _chart(report, "exceedance"), _chart(full, "exceedance")
    assert {"tokens, at least", "prompts, at least"} <= set(_texts(drawn))
    assert {"tokens", "prompts"} <= set(_texts(bounded))
    assert "fill-opacity" in bounded and "fill-opacity" not in drawn  # the band is the limit


def test_points_that_are_not_finite_are_left_out(full: Report) -> None:
    scatter = Scatter(x=[10, 20, 30], y=[0.1, -math.inf, math.nan], n_total=3)
    svg = _chart(_with_figures(full, log_ratio_by_length=scatter), "lengths")
    assert "nan" not in svg


def test_certain_and_impossible_tokens_are_drawn_on_the_edge(full: Report) -> None:
    scatter = Scatter(x=[0.0, 1.0, 0.5], y=[1.0, 0.0, 0.5], n_total=3)
    assert "nan" not in _chart(_with_figures(full, probability_scatter=scatter), "probabilities")


def test_equal_policies_make_no_curve_and_no_crash(full: Report) -> None:
    curve = tuple(Exceedance(tau, 0.0, 0.0, 0.0, None, 0.0, 0.02) for tau in (0.001, 0.01))
    report = full.model_copy(update={"alpha1": replace(full.alpha1, exceedance=curve)})
    bins = [PositionBin(low=0, high=7, n=10, mean=0.0, max=0.0)]
    names = [chart.name for chart in draw_charts(_with_figures(report, tv_by_position=bins))]
    assert "exceedance" not in names
    assert "positions" not in names


def test_without_matplotlib_the_error_says_what_to_install(full: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError) as caught:
        draw_charts(full)
    assert caught.value.hint == "pip install 'mismatchscope[report]'"


def test_tokens_are_counted_in_whole_numbers(full: Report) -> None:
    """Responses of 28 and 29 tokens: no tick lies between."""
    lengths = replace(full.figures.log_ratio_by_length, x=[28, 29], y=[0.1, -0.2], floor_y=None)
    figures = replace(full.figures, log_ratio_by_length=lengths)
    charts = {chart.name: chart.svg for chart in draw_charts(full.model_copy(update={"figures": figures}))}
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", charts["lengths"])
    assert {"28", "29"} <= set(texts)
    assert not [text for text in texts if text.startswith("28.")]
