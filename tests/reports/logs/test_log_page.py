"""The page of a log: its sections and pictures, its strips of tokens, and that it stays small and safe."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import example_reports
import pytest
from report_parts import HOSTILE

from mismatchscope.measures.log_results import LoggedSequence, LoggedToken
from mismatchscope.reports.html import render
from mismatchscope.reports.logs.strips import strips

CHROMIUM = Path("/usr/bin/chromium")
LOG = example_reports.log()


def sequence(**changes: Any) -> LoggedSequence:
    return replace(LOG.sequences[0], **changes)


def cells(*tokens: LoggedToken) -> list[tuple[str, str, str]]:
    report = LOG.model_copy(update={"sequences": [sequence(tokens=tokens)]})
    return [(cell.style, cell.mark, cell.numbers) for cell in strips(report)[0].cells]


def test_a_token_is_coloured_by_how_far_apart_its_log_probs_are() -> None:
    logprobs = [(-1.0, -1.005), (-1.0, -1.05), (-1.0, -1.5), (-1.0, -3.0), (-3.0, -1.0), (-1.0, float("-inf"))]
    found = cells(*(LoggedToken(1, mu, pi, True) for mu, pi in logprobs))
    assert [style for style, _, _ in found] == ["tv0", "tv1", "tv2", "tv3", "tv3", "tv3"]


def test_turns_and_versions_are_marked_where_they_begin() -> None:
    found = cells(*(LoggedToken(1, -1.0, -1.0, True, turn=turn, version=7 + turn) for turn in (0, 0, 1, 1)))
    assert [mark for _, mark, _ in found] == ["turn 0 v7", "", "turn 1 v8", ""]


def test_what_is_not_counted_or_not_known_says_so() -> None:
    ((style, _, numbers),) = cells(LoggedToken(12, -1.0, None, False))
    assert style == "out"
    assert numbers == "0 · id 12 · p 0.368 → ? · not counted"


@pytest.fixture(scope="module")
def page() -> str:
    return render(LOG)


@pytest.mark.slow
class TestPage:
    def test_the_sections_are_in_the_order_in_which_they_are_read(self, page: str) -> None:
        body = page[page.index("<body>") :]
        titles = [re.sub(r"\s*<small>.*", "", title) for title in re.findall(r"<h2>(.*?)</h2>", body)]
        first = ["Same distribution?", "The log", "Trend", "By worker", "By lag", "Where it comes from"]
        assert titles[: len(first)] == first
        assert titles.index("By lag") < titles.index("Responses") < titles.index("Corrections")

    def test_trends_and_trade_offs_are_drawn(self, page: str) -> None:
        found = re.findall(r'aria-labelledby="([\w-]+)-title', page)
        assert {"trend-token", "trend-sequence", "correction-token", "correction-by-step"} <= set(found)

    def test_nothing_foreign_is_markup(self, page: str) -> None:
        assert "<script" not in page
        assert "\x1b" not in page and "\u202e" not in page
        assert page.count("&lt;script&gt;") > 10
        assert not re.findall(r"\sstyle=|\son\w+=", re.sub(r">[^<]*<", "><", page))

    def test_foreign_names_of_rules_are_no_formulas(self) -> None:
        sweep = replace(LOG.correction_sweeps[0], name=f"$\\frac{HOSTILE}")
        assert "frac" in render(LOG.model_copy(update={"correction_sweeps": [sweep]}))

    def test_a_long_run_makes_a_small_page(self) -> None:
        """Ten responses of 800 tokens and a thousand steps: below 2 MB."""
        token = LoggedToken(123456, -1.2345, -1.3456, True, turn=3, version=120)
        shown = [sequence(sequence_id=at, tokens=(token,) * 800) for at in range(10)]
        steps = example_reports.log().trend
        assert steps is not None and steps.token.tv is not None
        long = replace(
            steps.token.tv,
            **{name: tuple((getattr(steps.token.tv, name) * 50)[:1000]) for name in ("values", "low", "high")},
            steps=tuple(range(1000)),
        )
        trend = replace(steps, token=replace(steps.token, tv=long))
        assert len(render(LOG.model_copy(update={"sequences": shown, "trend": trend})).encode()) < 2e6


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not there (apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as engine:
        chromium = engine.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
def test_a_tap_on_a_token_shows_its_numbers(
    browser: Any, page: str, tmp_path: Path, width: int, scheme: str
) -> None:
    file = tmp_path / "report.html"
    file.write_text(page, encoding="utf-8")
    shown = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    problems: list[str] = []
    shown.on("console", lambda message: problems.append(message.text))
    shown.goto(file.as_uri())
    token = shown.locator(".strip i").nth(2)
    token.click()
    bar = token.evaluate("each => getComputedStyle(each, '::after').content")
    assert "Δ" in bar and "id " in bar
    assert shown.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    assert not problems
    shown.close()
