"""Damage files, give odd options, and run the command on them, as often as one likes.

    python tests/faults/fuzz.py --files 5000 --models 200 --options 500 --seed 3 --only REGEX --keep DIRECTORY

It prints the exit codes by kind and all that is wrong with how a command ended; its own exit code is 1 then.
It is a process of its own: what it forks should have nothing in its memory but what the command needs.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import shutil
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from forked_command import Ended, Run, run_all, warm_up
from fuzz_cases import DAMAGE, cases, faults, undamaged_figures
from fuzz_kinds import KINDS, MODEL_KINDS, Kind
from fuzz_material import Workers, make_material, make_models
from fuzz_options import odd_commands


def main() -> None:
    parser = argparse.ArgumentParser()
    for what in ("files", "models", "options"):
        parser.add_argument(f"--{what}", type=int, default=0, help="how many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="kinds whose names match")
    parser.add_argument("--keep", type=Path, help="where the cases stay, to be looked into")
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="fuzz-"))
    warm_up()
    workers = {"synthetic": Workers("synthetic")}
    make_material(root, workers["synthetic"])
    if options.models:
        workers["transformers"] = Workers("transformers")
        making = multiprocessing.get_context("spawn").Process(target=make_models, args=(root,))
        making.start()
        making.join()
    undamaged = undamaged_figures(root)
    tally = Tally()
    kind_of: dict[Path, Kind | None] = {}

    def runs() -> Iterator[Run]:
        for kind, run in chosen(options, root, workers):
            kind_of[run.directory] = kind
            yield run

    for run, ended in run_all(runs()):
        kind = kind_of.pop(run.directory)
        tally.add(kind, run, ended, faults(run, ended, kind, undamaged.get(kind.material) if kind else None))
        if not options.keep:
            shutil.rmtree(run.directory, ignore_errors=True)
    tally.show()
    shutil.move(root, options.keep) if options.keep else shutil.rmtree(root)
    sys.exit(1 if tally.wrong else 0)


def chosen(
    options: argparse.Namespace, root: Path, workers: dict[str, Workers]
) -> Iterator[tuple[Kind | None, Run]]:
    """The cases that were asked for, with their kinds; odd options have none."""
    for what, kinds in (("files", KINDS), ("models", MODEL_KINDS)):
        matching = [kind for kind in kinds if re.search(options.only, kind.name)]
        if matching:
            yield from cases(matching, getattr(options, what), options.seed, root, root / "cases" / what, workers)
    for run in odd_commands(options.options, options.seed, root, root / "cases" / "options", workers["synthetic"]):
        yield None, run


class Tally:
    """How commands ended, by kind, and what was wrong with that."""

    def __init__(self) -> None:
        self.codes: defaultdict[str, Counter[int | None]] = defaultdict(Counter)
        self.wrong: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        self.slowest = self.largest = 0.0

    def add(self, kind: Kind | None, run: Run, ended: Ended, found: list[str]) -> None:
        name = kind.name if kind else run.arguments[0]
        self.codes[name][ended.code] += 1
        self.slowest, self.largest = max(self.slowest, ended.seconds), max(self.largest, ended.peak_bytes)
        damage = (run.directory / DAMAGE).read_text() if (run.directory / DAMAGE).exists() else ""
        said = ended.stderr.strip().splitlines()[:1]
        for fault in found:
            example = f"{run.directory.name} {damage} {said} {run.arguments} {run.environment}"
            self.wrong[name, fault].append(example[:1500])

    def show(self) -> None:
        for name, counts in self.codes.items():
            print(f"{name:40} {dict(sorted(counts.items(), key=str))}")
        for (name, fault), examples in sorted(self.wrong.items()):
            print(f"\n{name}: {fault}, {len(examples)} times", *examples, sep="\n    ")
        total = sum(self.codes.values(), Counter())
        failures = Counter(fault for (_, fault), examples in self.wrong.items() for _ in examples)
        print(f"\nslowest {self.slowest:.1f} s, largest {self.largest / 2**20:.0f} MiB")
        print(f"{total.total()} runs: {dict(sorted(total.items(), key=str))}; wrong: {dict(failures) or 'none'}")


if __name__ == "__main__":
    main()
