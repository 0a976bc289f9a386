"""The documentation against the code: what it names exists, what it shows runs, what is generated is current."""

from __future__ import annotations

import itertools
import re
import runpy
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import typer.main

from mismatchscope import cli, errors, gate
from mismatchscope.commands import terminal
from mismatchscope.comparison import alarms, law_alarms
from mismatchscope.comparison import compare_traces as compare
from mismatchscope.comparison.known_effects import EFFECTS
from mismatchscope.config import load_settings
from mismatchscope.engines import registry
from mismatchscope.engines.spec import parse_spec, resolve_options
from mismatchscope.measures import diagnosis_results, results
from mismatchscope.measures.correction_results import Correction
from mismatchscope.measures.corrections import USUAL
from mismatchscope.probes import audit
from mismatchscope.reports import confirmation_fields
from mismatchscope.reports import document as report
from mismatchscope.reports.formats import FORMATS, Format, render
from mismatchscope.traces import Manifest, Trace
from mismatchscope.traces.schema import sequences_schema, tokens_schema

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in DOCS.rglob("*.md")}
PAGES["../README.md"] = (ROOT / "README.md").read_text(encoding="utf-8")
GENERATED = "cli.md"

_FENCED = re.compile(r"^```(?P<kind>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^ {4}[^\n]*\n)+", re.MULTILINE)
_INLINE = re.compile(r"`(?P<text>[^`]+)`")
_LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#+ (?P<title>.+)$", re.MULTILINE)
_COMMAND = re.compile(r"\bmismatchscope (?=[a-z-])(?P<words>.+)")
_SHELL = {"|", "||", "&&", ";", ">", "2>"}


def blocks(page: str, kind: str) -> list[str]:
    """The fenced blocks of a page that are marked with exactly `kind`."""
    return [found["text"] for found in _FENCED.finditer(PAGES[page]) if found["kind"] == kind]


def commands() -> Iterator[tuple[str, str]]:
    """Every command line in code on a page, without its shell."""
    for name, page in PAGES.items():
        prose = _FENCED.sub("", page)
        code = [found["text"] for found in _FENCED.finditer(page) if not found["kind"].startswith("python")]
        code += [found[0] for found in _INDENTED.finditer(prose)]
        code += [" ".join(found["text"].split()) for found in _INLINE.finditer(prose)]
        for text in code if name != GENERATED else ():
            for found in _COMMAND.finditer(text.replace("\\\n", " ")):
                yield name, found["words"].strip()


@pytest.fixture
def unigram(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example engine of docs/extending.md, registered."""
    [source] = blocks("extending.md", "python file=unigram_engine.py")
    (tmp_path / "unigram_engine.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(registry.ENGINES, "unigram", "unigram_engine:UnigramEngine")


@pytest.fixture(scope="module")
def example_report(tmp_path_factory: pytest.TempPathFactory) -> report.Report:
    """What comparing the two traces of the example in docs/traces.md says."""
    [source] = blocks("traces.md", "python run")
    directory = tmp_path_factory.mktemp("example")
    (directory / "example.py").write_text(source, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        runpy.run_path("example.py")
    return compare.compare(Trace.open(directory / "mu"), Trace.open(directory / "pi"))


@pytest.fixture
def generator() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts" / "generate_cli_reference.py"))


def test_the_command_line_reference_is_current(generator: dict[str, Any]) -> None:
    assert PAGES[GENERATED] == generator["cli_reference"](), "run scripts/generate_cli_reference.py"


def test_the_option_tables_are_current(generator: dict[str, Any]) -> None:
    assert PAGES["engines.md"] == generator["with_tables"](PAGES["engines.md"]), (
        "run scripts/generate_cli_reference.py"
    )
    for name in registry.ENGINES | registry.SERVERS:
        marker = f"<!-- options: {name} -->"
        assert marker in PAGES["engines.md"], f"docs/engines.md needs a section with {marker} and <!-- end -->"


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in (found["target"] for found in _LINK.finditer(PAGES[page])):
            if target.startswith(("https://", "http://")):
                continue
            path, _, anchor = target.partition("#")
            file = (DOCS / page).parent / path if path else DOCS / page
            assert file.exists(), f"{page} links to {target}"
            assert not anchor or anchor in anchors(file), f"{page} links to {target}"


def anchors(file: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = (
        found["title"].lower() for found in _HEADING.finditer(_FENCED.sub("", file.read_text(encoding="utf-8")))
    )
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


def test_command_lines_are_accepted(
    unigram: None, example_report: report.Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "terminal", terminal.Terminal())
    app = typer.main.get_command(cli.app)
    seen = set()
    for page, command in commands():
        words = list(itertools.takewhile(lambda word: word not in _SHELL, shlex.split(command)))
        verb, name, arguments = app, "", words
        while hasattr(verb, "commands") and arguments and not arguments[0].startswith("-"):
            name, *arguments = arguments
            assert name in verb.commands, f"{page}: {command}"
            verb = verb.commands[name]
        seen.add(name)
        if not arguments:  # named, not shown
            continue
        parameters = verb.make_context(name, arguments).params
        for side in ("behavior", "reference", "engine"):
            if name != "compare" and parameters.get(side) not in (None, "SPEC"):
                resolve_options(parse_spec(parameters[side]))
        decide(example_report, parameters.get("fail_on") or [])
    assert seen >= {"audit", "rollout", "score", "compare", "gate", "doctor"}


def test_settings_are_accepted(tmp_path: Path, example_report: report.Report) -> None:
    thresholds = (DOCS / "gate.toml").read_text(encoding="utf-8")
    texts = [thresholds, thresholds.replace('# "', '"'), *(text for page in PAGES for text in blocks(page, "toml"))]
    texts = [text for text in texts if "project" not in tomllib.loads(text)]
    for text in texts:
        (tmp_path / "settings.toml").write_text(text, encoding="utf-8")
        settings = load_settings(tmp_path / "settings.toml", {}, [])
        for side in (settings.behavior, settings.reference):
            resolve_options(parse_spec(side))
        decide(example_report, settings.gate.fail_on)
    assert len(texts) >= 5


def decide(document: report.Report, expressions: list[str]) -> None:
    """Raise `ConfigError` for an expression that is no gate, or a path that no report has."""
    if expressions:
        gate.apply(document, expressions, baseline=document)


def test_the_example_trace_can_be_compared(example_report: report.Report) -> None:
    assert example_report.counts.prompts == 8
    assert example_report.counts.tokens == 640
    assert example_report.finding.code == "no_floor"
    assert example_report.token.abs_logprob_diff.mean == pytest.approx(0.01 * (2 / 3.14159) ** 0.5, rel=0.1)


@pytest.mark.slow
def test_the_example_engine_and_format_work(unigram: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(
        None,
        {
            "behavior": "unigram",
            "reference": "unigram:skew=0.1",
            "evidence": "sampled",
            "limit": 8,
            "sampling.max_new_tokens": 30,
        },
        [],
    )
    (tmp_path / "run").mkdir()
    found = audit.run_audit(settings, tmp_path / "run", command="", on_event=lambda event: None)
    assert found.finding.code == "above_floor"
    assert found.floor.behavior.identical and found.floor.reference.identical
    assert found.counts.tokens == 8 * 2 * 30

    [source] = blocks("extending.md", "python file=prometheus.py")
    (tmp_path / "prometheus.py").write_text(source, encoding="utf-8")
    monkeypatch.setitem(FORMATS, "prometheus", Format("prometheus:render", "report.prom"))
    assert f"mismatch_tv_mean {found.alpha1.mean.value!r}\n" in render(found, "prometheus")


def fields(*types: type) -> set[str]:
    return {name for each in types for name in get_type_hints(each) if name != "model_config"}


def codes(page: str) -> set[str]:
    """Every word in inline code on a page, dotted paths in pieces too."""
    spans = [found["text"] for found in _INLINE.finditer(_FENCED.sub("", PAGES[page]))]
    return set(spans) | {piece for span in spans for piece in re.split(r"\W+", span)}


def test_every_figure_is_defined() -> None:
    wanted = fields(results.Alpha, results.TokenMeasures, results.SequenceMeasures, results.Statistic)
    wanted |= fields(report.Floors, report.Floor, Correction) - {"name", "parameters"}
    wanted |= fields(diagnosis_results.DiagnosisAnswer, diagnosis_results.DiagnosedCause)
    wanted |= fields(diagnosis_results.DiagnosisPicture, diagnosis_results.DetectorRecord)
    wanted |= set(get_args(get_type_hints(diagnosis_results.DiagnosisAnswer)["code"]))
    wanted |= fields(*(getattr(confirmation_fields, name) for name in ("Confirmation", "ExperimentStep", "Proof")))
    wanted |= fields(report.BaselineComparison, report.PairSummary, results.Bounds)
    wanted |= set(get_args(report.BaselineComparison.model_fields["verdict"].annotation))
    wanted |= set(get_args(report.Finding.model_fields["code"].annotation))
    for module in (alarms, law_alarms):
        wanted |= set(re.findall(r'code="(\w+)"', Path(module.__file__).read_text(encoding="utf-8")))
    wanted |= {name for name, _ in USUAL}
    wanted |= {"truncation_floor", "rounding_floor", "alpha0", "beta", "bounds", "worst", "figures"}
    assert wanted <= codes("measures.md"), sorted(wanted - codes("measures.md"))


def test_every_part_of_a_trace_is_described() -> None:
    columns = {
        *sequences_schema().names,
        *tokens_schema(topk=True, tail_overlap=True, experts=True, mask=True, exact=True).names,
    }
    wanted = columns | fields(Manifest)
    assert wanted <= codes("traces.md"), sorted(wanted - codes("traces.md"))


def test_known_effects_are_listed_in_their_order() -> None:
    table = PAGES["troubleshooting.md"].partition("| provenance key |")[2].partition("\n\n")[0]
    listed = [code for row in table.splitlines()[2:] for code in _INLINE.findall(row.split("|")[1])]
    assert listed == [effect.pattern for effect in EFFECTS]


def test_every_error_is_listed() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    wanted = {kind.__name__ for kind in kinds} - {"MismatchScopeError"}
    assert wanted <= codes("troubleshooting.md"), sorted(wanted - codes("troubleshooting.md"))


def test_guides_say_when_and_with_what_their_output_was_recorded() -> None:
    guides = [page for page in PAGES if page.startswith("guide/")]
    assert len(guides) == 6
    for page in guides:
        last = PAGES[page].rstrip().rpartition("\n\n")[2]
        assert re.match(r"Recorded on \d+ \w+ \d{4} .*: mismatchscope \d", last), page
        assert blocks(page, "text"), f"{page} shows no output"
