"""Damage files, or give odd options, and run the command on them, as often as one likes.

    python tests/faults/fuzz.py --count 5000 --seed 3 --what files|models|options --only REGEX --keep DIRECTORY

It prints the exit codes by kind of file, and everything that is wrong with how a command ended.
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

from forked_command import Run, run_all, warm_up
from fuzz_cases import DAMAGE, cases, faults, undamaged_figures
from fuzz_kinds import KINDS, MODEL_KINDS, Kind
from fuzz_material import Workers, make_material, make_models
from fuzz_options import odd_commands


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--what", choices=("files", "models", "options"), default="files")
    parser.add_argument("--only", default="", help="kinds whose names match")
    parser.add_argument("--keep", type=Path, help="where the cases stay, to be looked into")
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="fuzz-"))
    warm_up()
    workers = {"synthetic": Workers("synthetic")}
    make_material(root, workers["synthetic"])
    if options.what == "models":
        workers["transformers"] = Workers("transformers")
        making = multiprocessing.get_context("spawn").Process(target=make_models, args=(root,))
        making.start()
        making.join()
    undamaged = undamaged_figures(root)
    kind_of: dict[Path, Kind | None] = {}

    def runs() -> Iterator[Run]:
        kinds = [
            kind for kind in (KINDS, MODEL_KINDS)[options.what == "models"] if re.search(options.only, kind.name)
        ]
        if options.what == "options":
            made = odd_commands(options.count, options.seed, root, root / "cases", workers["synthetic"])
            chosen = ((None, run) for run in made)
        else:
            chosen = cases(kinds, options.count, options.seed, root, root / "cases", workers)
        for kind, run in chosen:
            kind_of[run.directory] = kind
            yield run

    codes: defaultdict[str, Counter[int | None]] = defaultdict(Counter)
    wrong: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    slowest = largest = 0.0
    for run, ended in run_all(runs()):
        kind = kind_of.pop(run.directory)
        name = kind.name if kind else run.arguments[0]
        codes[name][ended.code] += 1
        slowest, largest = max(slowest, ended.seconds), max(largest, ended.peak_bytes)
        material = undamaged.get(kind.material) if kind else None
        for fault in faults(run, ended, kind, material):
            damage = (run.directory / DAMAGE).read_text() if (run.directory / DAMAGE).exists() else ""
            said = ended.stderr.strip().splitlines()[:1]
            wrong[name, fault].append(
                f"{run.directory.name} {damage} {said} {run.arguments} {run.environment}"[:1500]
            )
        if not options.keep:
            shutil.rmtree(run.directory, ignore_errors=True)
    for name, counts in codes.items():
        print(f"{name:40} {dict(sorted(counts.items(), key=str))}")
    for (name, fault), examples in sorted(wrong.items()):
        print(f"\n{name}: {fault}, {len(examples)} times", *examples, sep="\n    ")
    total = sum(codes.values(), Counter())
    failures = Counter(fault for (_, fault), examples in wrong.items() for _ in examples)
    print(f"\n{total.total()} runs: {dict(sorted(total.items(), key=str))}; wrong: {dict(failures) or 'none'}")
    print(f"slowest {slowest:.1f} s, largest {largest / 2**20:.0f} MiB")
    shutil.move(root, options.keep) if options.keep else shutil.rmtree(root)


if __name__ == "__main__":
    main()
