"""Files of a log that are there twice: copies of one file, and files of two runs that hold the same step."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path

from ..foreign_text import printable
from ..input_files import open_regular

Holds = Callable[[Path], str | None]
"""Which piece of a run a file holds, in words; None where nothing says it."""

_HASHED_BYTES = 2**20
_SHOWN = 3  # copies that are named
_NUMBER = re.compile(r"([0-9]+)")


def natural_order(path: Path) -> tuple[str | int, ...]:
    """A key that puts step_10 behind step_9."""
    return tuple(int(part) if index % 2 else part for index, part in enumerate(_NUMBER.split(str(path))))


def without_copies(files: Sequence[Path], holds: Holds) -> tuple[list[Path], list[str]]:
    """Of files with the same content one; and a sentence of the others, if there are any.

    The original says by its name what it holds, lies among the most files of the log, and is the oldest.
    """
    beside = Counter(path.parent for path in files)

    def is_less_likely(path: Path) -> tuple[bool, int, int, tuple[str | int, ...]]:
        return holds(path) is None, -beside[path.parent], path.stat().st_mtime_ns, natural_order(path)

    original_of: dict[Path, Path] = {}
    for same in _same_content(files):
        original, *others = sorted(same, key=is_less_likely)
        original_of |= dict.fromkeys(others, original)
    return [path for path in files if path not in original_of], _said_of_copies(original_of)


def _said_of_copies(original_of: Mapping[Path, Path]) -> list[str]:
    shown = [(printable(str(copy)), printable(str(of))) for copy, of in islice(original_of.items(), _SHOWN)]
    if len(original_of) < 2:
        return [f"{copy} has the content of {original} and is not counted twice." for copy, original in shown]
    named = ", ".join(f"{copy} that of {original}" for copy, original in shown)
    more = f", and {len(original_of) - _SHOWN:,} more" if len(original_of) > _SHOWN else ""
    return [f"{len(original_of):,} files have the content of others and are not counted twice: {named}{more}."]


def repeated_pieces(files: Iterable[Path], holds: Holds) -> list[str]:
    """A sentence where two files hold the same piece of a run: they are of two runs, or of one that went back."""
    by_piece: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        if (piece := holds(path)) is not None:
            by_piece[piece].append(path)
    repeated = [(piece, paths) for piece, paths in by_piece.items() if len(paths) > 1]
    if not repeated:
        return []
    piece, paths = repeated[0]
    where = " and ".join(printable(str(path)) for path in paths[:2])
    return [
        f"{piece} is in {where}: these are several runs, or one that went back to an earlier step. All that is "
        f"there of {len(repeated):,} such pieces is counted; name the files of one run to count it alone."
    ]


def _same_content(files: Iterable[Path]) -> list[list[Path]]:
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in files:
        by_size[path.stat().st_size].append(path)
    by_content: dict[bytes, list[Path]] = defaultdict(list)
    for same in by_size.values():
        for path in same if len(same) > 1 else ():
            by_content[_digest(path)].append(path)
    return [same for same in by_content.values() if len(same) > 1]


def _digest(path: Path) -> bytes:
    sha256 = hashlib.sha256()
    with open_regular(path) as file:
        while chunk := file.read(_HASHED_BYTES):
            sha256.update(chunk)
    return sha256.digest()
