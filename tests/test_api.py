"""The public API: what `import mismatchscope` gives, and that it measures what the command line measures."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import command
import numpy as np
import pytest
from synthetic_pair import Pair, make_pair

import mismatchscope as ms
from mismatchscope.prompts.files import load_prompts

ROOT = Path(ms.__file__).resolve().parent
SYNTHETIC = {"behavior": "synthetic:noise=0.003", "reference": "synthetic:noise=0.003,tv=0.05"}
SMALL = SYNTHETIC | {"limit": 6, "samples": 2, "max_new_tokens": 12}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("pair"), prompts=6)


def figures(report: ms.Report) -> dict[str, Any]:
    """All that does not depend on the words with which it was asked for."""
    return report.model_dump(mode="json", exclude={"provenance": True, "reading": {"next_step"}})


def test_importing_needs_no_other_package() -> None:
    """Engines import the package in interpreters of their own; `-S` leaves out everything that was installed."""
    program = "import sys; sys.path.insert(0, sys.argv[1]); import mismatchscope; print(mismatchscope.__version__)"
    program += "; print([name for name in sys.modules if name.startswith('mismatchscope.')])"
    arguments = [sys.executable, "-I", "-S", "-c", program, ROOT.parent]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == [ms.__version__, "[]"]


def test_every_name_is_there_and_no_other() -> None:
    for name in ms.__all__:
        assert getattr(ms, name) is not None
    assert set(ms.__all__) < set(dir(ms))
    assert ms.errors.ConfigError.exit_code == 2
    with pytest.raises(AttributeError, match="no attribute 'analyse'"):
        ms.analyse  # noqa: B018


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    branch = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in branch.body if isinstance(node, ast.ImportFrom)]
    seen = {
        alias.asname or alias.name: f"{node.module}:{alias.name}" if node.module else alias.name
        for node in imports
        for alias in node.names
    }
    assert seen == ms._HOMES
    assert sorted(seen) == sorted(ms.__all__)
    assert (ROOT / "py.typed").is_file()


@pytest.mark.slow
def test_its_types_are_checked(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "user.py").write_text(
        "import mismatchscope as ms\n"
        "reveal_type(ms.compare('mu', 'pi'))\n"
        "reveal_type(ms.open_trace('mu').path)\n"
        "ms.audit(temperature='hot')\n"
        "ms.analyse\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--follow-imports=silent", "--no-incremental", "user.py"],
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": str(ROOT.parent)},  # it does not see through every editable installation
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line.partition("user.py:")[2] for line in done.stdout.splitlines() if "user.py:" in line]
    assert 'Revealed type is "mismatchscope.reports.document.Report"' in lines[0]
    assert 'Revealed type is "pathlib.Path"' in lines[1]
    assert lines[2].startswith("4: error") and 'expected "float | None"' in lines[2]
    assert lines[3].startswith("5: error") and "[attr-defined]" in lines[3]


@pytest.mark.slow
def test_an_audit_is_that_of_the_command_line(tmp_path: Path) -> None:
    report = ms.audit(**SMALL, directory=tmp_path / "python", fail_on=["token.tv.mean > 0.5"])
    options = ["--limit", "6", "--samples", "2", "--max-new-tokens", "12", "--fail-on", "token.tv.mean > 0.5"]
    done = command.run("audit", *command.SYNTHETIC, *options, "-o", tmp_path / "shell")
    assert done.returncode == 0, done.stderr
    assert figures(report) == figures(ms.load_report(tmp_path / "shell"))
    assert report.verdict == "pass"
    assert ms.load_report(tmp_path / "python") == report
    assert ms.open_trace(tmp_path / "python" / "behavior").manifest.counts.sequences == 12


def test_an_audit_without_a_directory_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    report = ms.audit(**SMALL, repeats=False)
    assert report.counts.sequences == 12
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_an_audit_that_was_interrupted_goes_on(tmp_path: Path) -> None:
    first = ms.audit(**SMALL, directory=tmp_path / "run")
    (tmp_path / "run" / "report.json").unlink()
    assert figures(ms.audit(**SMALL, directory=tmp_path / "run", resume=True)) == figures(first)
    with pytest.raises(ms.errors.OutputExistsError, match="not empty"):
        ms.audit(**SMALL, directory=tmp_path / "run")
    with pytest.raises(ms.errors.OutputExistsError, match="holds an"):
        ms.audit(**SMALL | {"samples": 3}, directory=tmp_path / "run", resume=True)


def test_prompts_are_texts_chats_or_token_ids(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "secret"}]
    prompts = ["a text", chat, [5, 6, 7], (8, 9)]
    report = ms.audit(**SMALL | {"prompts": prompts, "limit": None}, directory=tmp_path / "run", repeats=False)
    read = load_prompts(tmp_path / "run" / "api-prompts.jsonl")
    assert [one.prompt for one in read] == ["a text", chat, None, None]
    assert [one.token_ids for one in read] == [None, None, [5, 6, 7], [8, 9]]
    sequences = ms.open_trace(tmp_path / "run" / "behavior").sequences()
    assert sequences["prompt_token_ids"].map(list)[4] == [5, 6, 7]
    assert report.counts.prompts == 4
    call = report.provenance.command
    assert "prompts='<4 given>'" in call and "repeats=False" in call and "limit" not in call
    assert "secret" not in call and "a text" not in call


def test_other_prompts_in_the_same_directory_are_refused_and_the_old_ones_stay(tmp_path: Path) -> None:
    given = SMALL | {"limit": None, "repeats": False, "directory": tmp_path / "run"}
    first = ms.audit(**given, prompts=["one", "two"])
    kept = {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}
    with pytest.raises(ms.errors.OutputExistsError, match="prompts_sha256"):
        ms.audit(**given, prompts=["uno", "dos"], resume=True)
    assert {file: file.read_bytes() for file in kept} == kept
    assert figures(ms.audit(**given, prompts=["one", "two"], resume=True)) == figures(first)


@pytest.mark.slow
def test_prompts_are_rows_too_as_a_frame_has_them(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "2 + 2?"}]
    tools = [{"function": {"name": "add"}}]
    rows = [
        {"prompt": np.array(chat, dtype=object), "data_source": "gsm8k", "tools": float("nan")},
        {"messages": tuple(chat), "tools": tools, "chat_template_kwargs": {"enable_thinking": np.bool_(False)}},
        {"prompt_token_ids": np.array([5, 6])},
    ]
    ms.audit(**SMALL | {"prompts": rows, "limit": None}, directory=tmp_path / "run", repeats=False)
    read = load_prompts(tmp_path / "run" / "api-prompts.jsonl")
    assert [one.prompt for one in read] == [chat, chat, None]
    assert read[1].template_arguments == {"tools": tools, "enable_thinking": False}
    assert read[2].token_ids == [5, 6]
    named = [{"question": "a", "system": "not read"}]
    options = {"prompts": named, "limit": None, "prompt_column": "question"}
    report = ms.audit(**SMALL | options, directory=tmp_path / "named", repeats=False)
    assert load_prompts(tmp_path / "named" / "api-prompts.jsonl")[0].prompt == "a"
    assert "prompt_column='question'" in report.provenance.command


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "prompts is empty"),
        ({"prompt": "a"}, "prompts is one row, not a list of them"),
        ([None], r"prompts\[0\]: prompt is null"),
        (["a", 3], r"prompts\[1\]: prompt is a number"),
        (["a", "b\ud800"], r"prompts\[1\]: prompt has a lone surrogate"),
        ([{"prompt": "a", "system": "b"}], r"prompts\[0\] has the key 'system', which is not read"),
        ([["one", "two"]], r"prompts\[0\] is text"),
        ([[1, -2]], r"prompts\[0\] has -2 at position 1"),
        ([[]], "at least one token id"),
        ([""], "not a text with something in it"),
        ([[{"role": "user"}]], "messages must be a list of objects"),
        ("absent.jsonl", "absent.jsonl cannot be read"),
    ],
)
def test_prompts_that_are_none_of_these_are_refused(tmp_path: Path, prompts: Any, message: str) -> None:
    with pytest.raises(ms.errors.UsageError, match=message):
        ms.audit(**SMALL | {"prompts": prompts}, directory=tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 0}, "sampling.samples = 0 is not valid"),
        ({"confidence": 2.0}, "confidence = 2.0 is not valid"),
        ({"evidence": "all"}, "'all' is not a kind of evidence"),
        ({"fail_on": ["token.tv > "]}, "is not a gate"),
        ({"fail_on": ["token.tv.mean > +10%"]}, "baseline"),
        ({"behavior": "nobody"}, "nobody"),
    ],
)
def test_a_wrong_setting_is_found_before_the_run(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ms.errors.UsageError, match=message):
        ms.audit(**SMALL | changes, directory=tmp_path / "run")
    assert not list(tmp_path.glob("run/behavior"))


@pytest.mark.slow
def test_paths_and_traces_compare_alike(pair: Pair, tmp_path: Path) -> None:
    mu, pi = pair.behavior, pair.reference
    report = ms.compare(mu, pi)
    assert figures(report) == figures(ms.compare(str(mu.path), pi.path))
    done = command.run("compare", mu.path, pi.path, "-o", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    assert figures(report) == figures(ms.load_report(tmp_path / "report"))
    assert report.provenance.command.startswith("mismatchscope.compare(behavior=")


def test_the_options_of_compare_reach_the_report(pair: Pair) -> None:
    mu, pi = pair.behavior, pair.reference
    report = ms.compare(mu, pi, target=mu, behavior_repeat=mu, reference_repeat=pi, confidence=0.9)
    assert report.alpha1.mean.confidence == 0.9
    assert report.beta is not None and report.beta.observed_max == 0.0
    assert report.floor.behavior is not None and report.floor.behavior.identical
    assert report.floor.reference is not None and report.floor.reference.identical
    assert ms.compare(mu, pi, policy="support").policy == "support"
    assert ms.compare(mu, pi, baseline=pi).baseline is not None


def test_gates_decide_a_comparison(pair: Pair) -> None:
    report = ms.compare(pair.behavior, pair.reference, fail_on=["token.tv.mean > 0", "counts.rejected > 0"])
    assert [gate.verdict for gate in report.gates] == ["fail", "pass"]
    assert report.verdict == "fail"
    assert ms.compare(pair.behavior, pair.reference, fail_on="counts.rejected > 0").verdict == "pass"


def test_what_must_not_be_compared_is_an_error(pair: Pair, tmp_path: Path) -> None:
    batch = {"prompts": [[1]], "responses": [[2, 3]], "logprobs": [[-1.0, -1.0]]}
    other = ms.write_trace(tmp_path / "other", role="reference", **batch)
    with pytest.raises(ms.errors.MisalignedError):
        ms.compare(pair.behavior, other)
    with pytest.raises(ms.errors.TraceError, match="is no trace"):
        ms.compare(pair.behavior, tmp_path / "absent")
    with pytest.raises(ms.errors.ConfigError, match="confidence"):
        ms.compare(pair.behavior, pair.reference, confidence=0.1)


def test_an_altered_trace_is_opened_only_unverified(pair: Pair, tmp_path: Path) -> None:
    batch = {"prompts": [[1]], "responses": [[2, 3]], "logprobs": [[-1.0, -1.0]]}
    path = ms.write_trace(tmp_path / "mu", role="behavior", **batch).path
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["tokens.parquet"] = "0" * 64
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ms.errors.TraceError, match="truncated or altered"):
        ms.open_trace(path)
    assert ms.open_trace(path, verify=False).manifest.counts.tokens == 2


def test_a_report_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ms.errors.TraceError, match=r"report\.json does not exist"):
        ms.load_report(tmp_path)


@pytest.mark.parametrize(
    ("mu", "pi", "options", "message"),
    [
        ([[0.0, 1.0]], [[0.0, 1.0, 2.0]], {}, "shapes must be the same"),
        (np.zeros((1, 2), dtype=np.int64), [[0.0, 1.0]], {}, "the behaviour is int64"),
        ([[0.0, np.nan]], [[0.0, 1.0]], {}, "row 0 of the behaviour holds nan"),
        ([[0.0, 1.0]], [[0.0, 1.0]], {"normalised": True}, "not normalised"),
        ([[0.0, 1.0]], [[0.0, 1.0]], {"token_id_N": [2]}, "outside the vocabulary"),
    ],
)
def test_blocks_that_cannot_be_measured_are_an_error(
    mu: Any, pi: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ms.errors.UsageError, match=message):
        ms.divergences(mu, pi, **options)


def test_no_states_are_an_empty_comparison() -> None:
    with pytest.raises(ms.errors.EmptyComparisonError):
        ms.divergences(np.zeros((0, 3)), np.zeros((0, 3)))
