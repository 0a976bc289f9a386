"""Damaged files and odd options: an exit code that fits, a sentence, bounded time and memory, and no wrong pass.

`python tests/faults/fuzz.py` does the same as often as one likes.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from forked_command import Run, run_all, warm_up
from fuzz_cases import DAMAGE, cases, faults, undamaged_figures
from fuzz_kinds import KINDS, MODEL_KINDS, Kind
from fuzz_material import Workers, make_material, make_models
from fuzz_options import odd_commands

pytestmark = pytest.mark.slow

SEED = 20
FILES, OPTIONS, MODELS = 500, 80, 24
SECONDS = 20.0


@pytest.fixture(scope="module")
def workers() -> dict[str, Workers]:
    warm_up()
    return {"synthetic": Workers("synthetic")}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory, workers: dict[str, Workers]) -> Path:
    root = tmp_path_factory.mktemp("fuzz")
    make_material(root, workers["synthetic"])
    return root


def wrong(runs: Iterable[tuple[Kind | None, Run]], undamaged: dict | None = None) -> tuple[list[str], Counter]:
    """Everything that is wrong with how these ended, and their exit codes."""
    kind_of: dict[Path, Kind | None] = {}

    def noted() -> Iterator[Run]:
        for kind, run in runs:
            kind_of[run.directory] = kind
            yield run

    found, codes = [], Counter()
    for run, ended in run_all(noted(), seconds=SECONDS):
        kind = kind_of[run.directory]
        codes[ended.code] += 1
        expected = None if kind is None or undamaged is None else undamaged.get(kind.material)
        for fault in faults(run, ended, kind, expected):
            damage = (run.directory / DAMAGE).read_text() if (run.directory / DAMAGE).exists() else ""
            found.append(f"{fault}: {run.arguments} {run.environment} {damage}\n{ended.stderr[-500:]}")
        shutil.rmtree(run.directory, ignore_errors=True)
    return found, codes


def test_damaged_files(material: Path, workers: dict[str, Workers], tmp_path: Path) -> None:
    found, codes = wrong(cases(KINDS, FILES, SEED, material, tmp_path, workers), undamaged_figures(material))
    assert not found, "\n".join(found)
    assert codes.total() == FILES
    assert codes[2] > 0.05 * FILES < codes[3]  # refused, by what reads each kind


def test_odd_options_and_variables(material: Path, workers: dict[str, Workers], tmp_path: Path) -> None:
    found, codes = wrong(
        (None, run) for run in odd_commands(OPTIONS, SEED, material, tmp_path, workers["synthetic"])
    )
    assert not found, "\n".join(found)
    assert codes[0] and codes[2] and codes[3]


def test_damaged_models(material: Path, tmp_path: Path) -> None:
    make_models(material)
    workers = {"transformers": Workers("transformers")}
    found, codes = wrong(cases(MODEL_KINDS, MODELS, SEED, material, tmp_path, workers))
    assert not found, "\n".join(found)
    assert codes.total() == MODELS
