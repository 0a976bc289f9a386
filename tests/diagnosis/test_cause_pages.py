"""The pages of docs/causes: one a cause, current, and with nothing that leads nowhere."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from mismatchscope.diagnosis.catalogue import causes
from mismatchscope.diagnosis.decisions import DECISIONS
from mismatchscope.diagnosis.records import record_of
from mismatchscope.environments.store import find

ROOT = Path(__file__).resolve().parents[2]
DIRECTORY = ROOT / "docs" / "causes"
CODES = list(causes())
LINK = re.compile(r"\]\(([^)\s#]+)[^)\s]*\)")


@pytest.fixture(scope="module")
def generator() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts" / "generate_cause_pages.py"))


def test_the_pages_are_those_that_the_script_writes(generator: dict[str, Any]) -> None:
    written = {file.name: file.read_text(encoding="utf-8") for file in DIRECTORY.glob("*.md")}
    assert written == generator["pages"](), "run scripts/generate_cause_pages.py"


def test_there_is_a_page_a_cause_with_every_section(generator: dict[str, Any]) -> None:
    assert set(generator["texts"]()) == set(CODES)
    for code in CODES:
        page = (DIRECTORY / f"{code}.md").read_text(encoding="utf-8")
        assert page.count("\n## ") == 7, code
        assert "mismatchscope " in page.partition("## How to prove it")[2].partition("## How to fix it")[0], code


def test_links_of_the_pages_lead_somewhere() -> None:
    for file in DIRECTORY.glob("*.md"):
        for target in LINK.findall(file.read_text(encoding="utf-8")):
            assert (DIRECTORY / target).is_file(), f"{file.name} links to {target}"


def test_every_result_of_an_experiment_has_words(generator: dict[str, Any]) -> None:
    results = generator["words"]()["results"]
    assert {(name, result) for name, words in results.items() for result in words} == set(DECISIONS)


def test_plots_are_small_and_have_nothing_of_the_day_they_were_drawn_on(generator: dict[str, Any]) -> None:
    drawn = {file.stem: file for file in (DIRECTORY / "plots").glob("*.svg")}
    assert set(drawn) == set(generator["plots"]()) <= set(CODES)
    for code, file in drawn.items():
        text = file.read_text(encoding="utf-8")
        assert text.startswith("<svg xmlns=") and len(text) < 40_000, code
        assert generator["texts"]()[code]["see"], code
        assert not re.search(r"<metadata|<dc:date|20\d\d-\d\d-\d\d", text), code


@pytest.mark.engines
@pytest.mark.parametrize(
    ("engine", "version", "title", "files"),
    [
        ("vllm", "0.32.0", "vLLM", ("engine/arg_utils.py", "envs.py", "lora/request.py")),
        ("sglang", "0.5.23", "SGLang", ("srt/server_args.py", "srt/environ.py", "srt/arg_groups/fields/*.py")),
    ],
)
def test_flags_and_variables_are_the_engines_own(
    generator: dict[str, Any], engine: str, version: str, title: str, files: tuple[str, ...]
) -> None:
    environment = find(engine, version)
    if environment is None:
        pytest.skip(f"there is no environment of {engine} {version}")
    (package,) = environment.path.glob(f"lib/python*/site-packages/{engine}")
    source = "".join(file.read_text(encoding="utf-8") for names in files for file in package.glob(names))
    named = set()
    for text in generator["texts"]().values():
        for fix in text["fix"]:
            parts = re.split(r"\*\*(\w+)\*\*", fix)
            own = "".join(part for name, part in zip(parts[1::2], parts[2::2], strict=True) if name == title)
            named |= set(re.findall(rf"--[a-z][a-z0-9-]+|{engine.upper()}_[A-Z_0-9]+", own))
    assert len(named) > 8
    for name in named:
        field = name.removeprefix("--").removeprefix("no-").replace("-", "_")
        assert f'"{name}"' in source or re.search(rf"\b{field}\b", source), name


def test_a_cause_is_told_from_causes_that_there_are(generator: dict[str, Any]) -> None:
    for code, text in generator["texts"]().items():
        others = [other for other, _ in text["confused"]]
        assert others and code not in others and set(others) <= set(CODES), code


def test_the_quoted_records_are_those_of_now() -> None:
    """Cases are drawn with metadata, of most with a floor; scripts/draw_cause_plots.py quotes the answers again."""
    said = json.loads((DIRECTORY / "plots" / "plots.json").read_text(encoding="utf-8"))
    quoted = 0
    for of_cause in said.values():
        for detector, right, cases in re.findall(r"\((\S+) was right in (\d+) of (\d+) ", of_cause.get("what", "")):
            records = filter(None, (record_of(detector, level) for level in ("metadata", "metadata, no floor")))
            assert (int(right), int(cases)) in [(each.right, each.cases) for each in records], detector
            quoted += 1
    assert quoted > 20
