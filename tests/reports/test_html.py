from __future__ import annotations

import base64
import hashlib
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from example_reports import HOSTILE

from mismatchscope.errors import MissingDependencyError
from mismatchscope.reports.difference_fields import Difference
from mismatchscope.reports.document import Alarm, Finding, Report
from mismatchscope.reports.html import render
from mismatchscope.reports.worst_fields import ContextToken

CHROMIUM = Path("/usr/bin/chromium")


class _Page(HTMLParser):
    """Collects the tags, the attributes and the text of a document."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_verdict_and_the_key_figures_come_first(full: Report, pages: dict[str, str]) -> None:
    document = pages["full"]
    text = " ".join(_Page(document[document.index("<body>") :]).text.split())
    order = ["DIFFERENCE", full.finding.sentence, "24,576 tokens", "above the repeat floor", "Per token"]
    places = [text.index(each) for each in order]
    assert places == sorted(places)


@pytest.mark.parametrize("name", ["full", "topk", "sampled", "versions"])
def test_the_page_fetches_nothing_and_runs_nothing(pages: dict[str, str], name: str) -> None:
    page = _Page(pages[name])
    assert "script" not in page.tags
    assert not [name for name, _ in page.attributes if name == "style" or name.startswith("on")]
    links = [value for name, value in page.attributes if name in ("src", "href", "xlink:href")]
    assert all(link and link.startswith(("#", "data:")) for link in links)


def test_the_policy_allows_this_style_sheet_alone(pages: dict[str, str]) -> None:
    document = pages["full"]
    (style,) = re.findall(r"<style>(.*?)</style>", document, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', document)
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:")
    assert "unsafe" not in policy


def test_foreign_text_is_escaped_everywhere(full: Report, versions: Report) -> None:
    word = replace(full.worst[0], context=[ContextToken(text=HOSTILE)], focus=0)
    provenance = full.provenance.model_copy(update={"behavior": {HOSTILE: {"x": HOSTILE}}, "command": HOSTILE})
    baseline = versions.baseline.model_copy(
        update={"sentence": HOSTILE, "difference": [Difference(key=HOSTILE)], "provenance": {"engine": HOSTILE}}
    )
    hostile = full.model_copy(
        update={
            "baseline": baseline,
            "finding": Finding(code="no_floor", sentence=HOSTILE),
            "alarms": [Alarm(code="x", message=HOSTILE, remedy=HOSTILE)],
            "worst": [word],
            "provenance": provenance,
        }
    )
    document = render(hostile)
    assert "script" not in _Page(document).tags
    assert "\x1b" not in document
    assert "\u202e" not in document
    assert document.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 8


def test_ids_are_unique(pages: dict[str, str]) -> None:
    ids = [value for name, value in _Page(pages["full"]).attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_every_measure_has_its_definition_at_hand(pages: dict[str, str]) -> None:
    text = _Page(pages["full"]).text
    assert "Effective share of the responses" in text
    assert "ρ − 1 − log ρ" in text


def test_missing_parts_are_left_out_or_named(pages: dict[str, str]) -> None:
    text = _Page(pages["sampled"]).text
    assert "needs top-k or full evidence" in text
    assert "no repeat was compared" in text
    assert "not compared: 3 responses only in μ, 1 row rejected" in text
    for absent in ("Pictures", "Farthest apart", "Corrections", "Bounds", "Gates"):
        assert absent not in text


def test_three_policies_and_gates_are_shown(pages: dict[str, str]) -> None:
    text = _Page(pages["topk"]).text
    for present in ("α₀", "β", "π_θ", "alpha1.mean.high > 0.002", "inconclusive"):
        assert present in text


def test_a_version_audit_shows_its_pairs_and_what_new_and_old_differ_in(pages: dict[str, str]) -> None:
    text = " ".join(re.sub(r"<[^>]+>", " ", pages["versions"]).split())
    assert text.index("WORSE Further from the trainer") < text.index("Against the baseline")
    assert "new vllm 0.32.0, old vllm 0.27.1, trainer transformers" in text
    assert "old – trainer 0.00120 [0.00102, 0.00139] 0.0911 3.12e-5 [2.41e-5, 3.95e-5]" in text
    assert "new – old 0.00170 [0.00149, 0.00192] 0.132 5.02e-5 [3.91e-5, 6.31e-5] – no" in text
    assert "negative is closer to the trainer. What both engines have in common cancels. TV 0.00093" in text
    assert text.index("effective.attention") < text.index("engine_version")
    assert all("Against the baseline" not in pages[name] for name in ("full", "topk", "sampled"))


def test_differing_provenance_is_marked(pages: dict[str, str]) -> None:
    rows = re.findall(r'<tr class="cause"><th scope="row">([^<]+)<', pages["full"])
    assert {"settings.dtype", "settings.attention", "engine", "version"} == set(rows)


def test_settings_of_one_side_alone_are_folded(full: Report) -> None:
    alone = Difference(key="effective.block_size", behavior=16)
    provenance = full.provenance.model_copy(update={"difference": [*full.provenance.difference, alone]})
    document = render(full.model_copy(update={"provenance": provenance}))
    section = document[document.index("What differs between the two sides") :]
    fold = section.index("<summary>1 setting that one side alone reports</summary>")
    assert section.index("settings.dtype") < fold < section.index("effective.block_size")


def test_without_jinja2_the_error_says_what_to_install(full: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingDependencyError) as caught:
        render(full)
    assert caught.value.hint == "pip install 'mismatchscope[report]'"


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not there (apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as engine:
        chromium = engine.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.mark.browser
@pytest.mark.parametrize("name", ["full", "topk", "sampled", "versions"])
def test_in_a_browser(browser, pages: dict[str, str], tmp_path: Path, name: str) -> None:
    file = tmp_path / "report.html"
    file.write_text(pages[name], encoding="utf-8")
    page = browser.new_page()
    said: list[str] = []
    requested: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: requested.append(request.url))
    page.goto(file.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert all(size >= 10 for size in page.evaluate(_SMALLEST_TEXT_OF_EACH_CHART))
    assert _background(page, "light") != _background(page, "dark")  # which the style sheet alone can bring about
    assert len(page.screenshot(full_page=True)) > 10_000

    assert said == []  # a violation of the content security policy would be reported here
    assert [url for url in requested if not url.startswith("data:")] == [file.as_uri()]
    page.close()


@pytest.mark.browser
def test_long_runs_of_spaces_stay_in_their_box(browser, full: Report, tmp_path: Path) -> None:
    worst = replace(full.worst[0], context=[ContextToken(text=" " * 300), ContextToken(text="x")], focus=1)
    file = tmp_path / "report.html"
    file.write_text(render(full.model_copy(update={"worst": [worst]})), encoding="utf-8")
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(file.as_uri())
    right = "Math.max(...[...document.querySelectorAll('.context > *')].map(e => e.getBoundingClientRect().right))"
    assert page.evaluate(right) <= 390
    page.close()


_SMALLEST_TEXT_OF_EACH_CHART = """
[...document.querySelectorAll('svg')].map(svg => {
    const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
    const sizes = [...svg.querySelectorAll('text')].map(text => parseFloat(getComputedStyle(text).fontSize));
    return Math.min(...sizes) * scale;
})
"""


def _background(page, scheme: str) -> str:
    page.emulate_media(color_scheme=scheme)
    return page.evaluate("getComputedStyle(document.body).backgroundColor")
