"""Which dumps are of one step: the files of a trainer's ranks, and the rollout that they were made of.

Where several runs lie side by side, the same rollout and rank is there several times, and only names say what
belongs together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path

from ...errors import UsageError
from ..source import Part
from ..torch_files import MAGIC
from .files import DumpFile, dump_file_or_none


def parts_by_step(dumps: Iterable[DumpFile]) -> list[Part]:
    """A part a rollout of a run: the trainer's files first.

    Rollouts for evaluation are nobody's training data. Where something was trained on others, nothing is read of a
    rollout that has no such dump: its part is empty. Raises `UsageError` where names do not say which files are of
    one run.
    """
    rollouts: dict[int, list[DumpFile]] = defaultdict(list)
    trained: dict[int, list[DumpFile]] = defaultdict(list)
    for dump in sorted(dumps, key=lambda dump: str(dump.path)):
        if dump.kind != "loss" and not dump.is_evaluation:
            of_kind = trained if dump.kind == "train" else rollouts
            of_kind[-1 if dump.rollout_id is None else dump.rollout_id].append(dump)
    parts = []
    stop = 0 if trained else None
    for rollout_id in sorted({*rollouts, *trained}):
        steps = [[dump.path for dump in ranks] for ranks in _by_update(trained[rollout_id])]
        alone = [dump.path for dump in rollouts[rollout_id]]
        for ranks, path in _pairs(steps, alone):
            ranks.append(path)
            alone.remove(path)
        parts += [Part(paths[0], joined=tuple(paths[1:])) for paths in steps]
        parts += [Part(path, stop=stop) for path in alone]
    return parts


def finished_parts(parts: Iterable[Part]) -> list[Part]:
    """The steps that are written in full. A rollout's dump comes before what is trained on it, and those of the
    ranks come one by one, before any of the next step."""
    led = {part: dump_file_or_none(part.path, MAGIC) for part in parts}
    latest: dict[Path, int] = defaultdict(lambda: -1)
    for dump in led.values():
        if dump is not None and dump.kind == "train":
            latest[dump.path.parent] = max(latest[dump.path.parent], dump.rollout_id or 0)

    def is_finished(dump: DumpFile | None) -> bool:
        if dump is None or dump.kind != "train":
            return False  # nothing to compare is in what comes before the trainer's
        return dump.has_all_ranks or (dump.rollout_id or 0) < latest[dump.path.parent]

    return [part for part, dump in led.items() if is_finished(dump)]


def run_of(path: Path) -> Path:
    """The directory of a run that holds its dumps by their kind."""
    return path.resolve().parent.parent


def _by_update(dumps: Sequence[DumpFile]) -> list[list[DumpFile]]:
    """Trainers' dumps of one rollout, those of all ranks of an update together: of one directory where a rank is
    there twice."""
    updates = [[dump] for dump in dumps if dump.has_all_ranks]
    of_ranks = sorted((dump for dump in dumps if not dump.has_all_ranks), key=lambda dump: dump.rank or 0)
    if not of_ranks:
        return updates
    if _repeated_rank(of_ranks) is None:
        return [*updates, of_ranks]
    by_directory: dict[Path, list[DumpFile]] = defaultdict(list)
    for dump in of_ranks:
        by_directory[dump.path.resolve().parent].append(dump)
    for ranks in by_directory.values():
        if (twice := _repeated_rank(ranks)) is not None:
            raise _unclear(twice)
    return updates + list(by_directory.values())


def _repeated_rank(dumps: Iterable[DumpFile]) -> list[Path] | None:
    seen: dict[int, Path] = {}
    for dump in dumps:
        if dump.rank is not None and seen.setdefault(dump.rank, dump.path) != dump.path:
            return [seen[dump.rank], dump.path]
    return None


def _pairs(steps: Sequence[list[Path]], rollouts: Sequence[Path]) -> list[tuple[list[Path], Path]]:
    """Of one rollout's updates and dumps those that belong together: one of each, or those whose paths have more in
    common than either has with any other."""
    if len(steps) == len(rollouts) == 1:
        return [(steps[0], rollouts[0])]
    in_common = {
        (at, number): _in_common(str(step[0].resolve()), str(path.resolve()))
        for at, step in enumerate(steps)
        for number, path in enumerate(rollouts)
    }
    left = {pair for pair, letters in in_common.items() if letters}
    pairs = []
    while left:
        most = max(in_common[pair] for pair in left)
        at, number = next(pair for pair in sorted(left) if in_common[pair] == most)
        rivals = {pair for pair in left if at == pair[0] or number == pair[1]}
        equal = sorted(pair for pair in rivals if in_common[pair] == most)
        if len(equal) > 1:
            raise _unclear(dict.fromkeys(path for i, j in equal for path in (steps[i][0], rollouts[j])))
        pairs.append((steps[at], rollouts[number]))
        left -= rivals
    return pairs


def _in_common(left: str, right: str) -> int:
    """With how many letters two paths begin alike; 0 where not even the directories above theirs are the same."""
    letters = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))
    return letters if all(letters > len(str(Path(path).parent.parent)) for path in (left, right)) else 0


def _unclear(paths: Iterable[Path]) -> UsageError:
    return UsageError(
        f"Several runs are here, and which files are of one of them cannot be told: {', '.join(map(str, paths))}.",
        hint="name the files of one run, or put each run into a directory of its own",
    )
