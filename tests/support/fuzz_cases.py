"""Damaged copies of sound files, the command that reads each, and what is wrong with how it ended."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from forked_command import Ended, Run, run_all
from fuzz_kinds import COMPARED, Kind
from fuzz_material import EVIDENCE, Workers, cache
from mutations import mutate
from table_mutations import damage_distributions, damage_table, seal

FIGURES = ("verdict", "counts", "finding", "alpha1", "token", "sequence", "floor", "worst")
DAMAGE = "damage.json"
"""A file of a case: what was damaged, how, and whether it says the same all the same."""

_FAILED = re.compile(r"error: (Unexpected\b|\w+(Error|Exception)\b)")


def cases(
    kinds: Sequence[Kind], count: int, seed: int, root: Path, out: Path, workers: dict[str, Workers]
) -> Iterator[tuple[Kind, Run]]:
    """`count` damaged copies of the material in `root`, the same ones for the same seed."""
    turns = [kind for kind in kinds for _ in range(kind.weight)]
    random.Random(seed).shuffle(turns)
    for index in range(count):
        kind = turns[index % len(turns)]
        random_ = random.Random(f"{seed} {index}")
        yield (
            kind,
            Run(
                out / f"{index:05d}",
                random_.choice(kind.commands),
                prepare=_damage(kind, random_, root),
                before=workers[kind.workers] if kind.workers else None,
                environment=cache(root),
            ),
        )


def _damage(kind: Kind, random_: random.Random, root: Path) -> Callable[[Path], None]:
    def prepare(directory: Path) -> None:
        material = directory / "material"
        shutil.copytree(root / kind.material, material)
        pattern = random_.choice(kind.files)
        file = random_.choice(sorted(material.glob(pattern)))
        before = file.read_bytes()
        if kind.resealed:
            what = (damage_distributions if file.suffix == ".safetensors" else damage_table)(random_, file)
            seal(file.parent)
        else:
            what, data = mutate(kind.mutations, random_, before)
            file.write_bytes(data)
        damage = {"file": pattern, "what": what, "same": same_content(file, before, file.read_bytes())}
        (directory / DAMAGE).write_text(json.dumps(damage))

    return prepare


def same_content(file: Path, before: bytes, after: bytes) -> bool:
    """Whether two contents of a file say the same: equal bytes, or equal as JSON."""
    if before == after or file.suffix != ".json":
        return before == after
    try:
        return bool(json.loads(before) == json.loads(after))
    except (ValueError, RecursionError):
        return False


def figures(report: Path) -> dict[str, Any] | None:
    """What a report says of the data, without what it says of the machine; None where there is none."""
    try:
        document = json.loads(report.read_bytes())
    except (OSError, ValueError):
        return None
    return {key: document[key] for key in FIGURES}


def alike(ours: Any, theirs: Any) -> bool:
    """Whether two values of a report are the same but for the last digits, which the order of a sum decides."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(alike(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(alike, ours, theirs))
    if isinstance(ours, float) and isinstance(theirs, float):
        return math.isclose(ours, theirs, rel_tol=1e-9, abs_tol=1e-12)
    return bool(ours == theirs)


def undamaged_figures(root: Path) -> dict[str, dict[str, Any] | None]:
    """What the commands of `KINDS` report of the material that nobody damaged, by its name."""

    def copy(evidence: str) -> Callable[[Path], None]:
        return lambda directory: shutil.copytree(root / evidence, directory / "material") and None

    runs = [
        Run(root / "compared" / evidence, COMPARED, prepare=copy(evidence), environment=cache(root))
        for evidence in EVIDENCE
    ]
    found = {"unfinished": figures(root / "full" / "report.json")}
    for run, ended in run_all(runs, seconds=120):
        assert ended.code == 0, ended.output
        found[run.directory.name] = figures(run.directory / "out" / "report.json")
    return found


def faults(
    run: Run,
    ended: Ended,
    kind: Kind | None = None,
    undamaged: dict[str, Any] | None = None,
    peak_bytes: int = 2**30,
) -> list[str]:
    """What is wrong with how a command ended: nothing, of a good one."""
    found = []
    if ended.code is None:
        found.append("no end")
    elif ended.code not in (kind.codes if kind else range(5)):
        found.append(f"exit code {ended.code}")
    if failed := _FAILED.search(ended.output):
        found.append(failed[0])
    if "Traceback" in ended.output and "error:" not in ended.stderr:  # a worker's log may have one
        found.append("traceback")
    if ended.peak_bytes > peak_bytes:
        found.append(f"{ended.peak_bytes / 2**20:.0f} MiB")
    if ended.code not in (0, None) and not ended.output.strip():
        found.append("no message")
    if kind is not None and ended.code == 0:
        if kind.report is not None and not alike(figures(run.directory / kind.report), undamaged):
            found.append("passed with other figures")
        if kind.gated is not None and not _passes(run.directory / kind.gated):
            found.append("passed a gate without the figure")
    return found


def _passes(report: Path) -> bool:
    """Whether a damaged report still has what its gates decide on, below their thresholds of 0.5."""
    document = json.loads(report.read_bytes())
    mean, bound = document["token"]["tv"], document["alpha1"]["mean"]
    return all(isinstance(value, int | float) and value <= 0.5 for value in (mean["high"], bound["high"]))
