"""The directory that a run writes to: free, or one of ours that may be replaced; and this run's alone meanwhile."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import LockedError, OutputExistsError, UsageError
from ..locking import DIRECTORY_LOCK, holder_of, locked, release, try_lock
from ..temporary import remove_abandoned
from ..traces.identity import check_free
from .run_files import TRACES, content, is_of_a_run, unfinished_files

_ANOTHER = "choose another -o"
_SHOWN = 3


@contextlib.contextmanager
def output_directory(
    directory: Path,
    *,
    force: bool = False,
    resume: bool = False,
    inputs: Sequence[Path | None] = (),
    beside: Sequence[Path] = (),
    hint: str = f"{_ANOTHER}, or add --force or --resume",
) -> Iterator[None]:
    """Make the directory that a run writes to, and keep other runs out of it until this one has ended.

    `beside` are directories that the run writes too. `force` removes what an earlier run wrote there, file by file,
    and nothing where there is anything else. `inputs` is what the run reads: a directory that holds any of it is
    not replaced. `hint` says what to do about a directory that is not empty.

    Raises `OutputExistsError` for a directory that is taken, `LockedError` for one that another run writes to, and
    `UsageError` for one that cannot be made or written.
    """
    places = (directory, *beside)
    with contextlib.ExitStack() as stack:
        try:
            for place in places:
                if not force and not resume and not os.path.lexists(place / DIRECTORY_LOCK):
                    check_free(place, hint=hint)
                stack.enter_context(_alone_in(place))
            removed = []
            for place in places:
                if resume:
                    removed += _unfinished(place)
                elif force:
                    removed += _replaceable(place, inputs)
                else:
                    check_free(place, hint=hint)
            for path in removed:
                path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
        except OSError as error:
            raise UsageError(
                f"{error.filename or directory} cannot be used: {error.strerror or error}.", hint=_ANOTHER
            ) from None
        remove_abandoned()
        yield


@contextlib.contextmanager
def _alone_in(place: Path) -> Iterator[None]:
    """Make a directory and lock it; one that was made and has nothing in it at the end goes again."""
    made = not os.path.lexists(place)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise OutputExistsError(f"{place} is no directory.", hint=_ANOTHER) from None
    try:
        with locked(place / DIRECTORY_LOCK, str(place)):
            _check_neighbours(place)
            yield
    finally:
        if made:
            with contextlib.suppress(OSError):  # not empty
                place.rmdir()


def _check_neighbours(place: Path) -> None:
    """Raise `LockedError` where another run writes a trace within this directory, or all around it."""
    place = place.resolve()
    neighbours = [place / name for name in sorted(TRACES)]
    if place.name in TRACES:
        neighbours.append(place.parent)
    for neighbour in neighbours:
        path = neighbour / DIRECTORY_LOCK
        if os.path.lexists(path):
            lock = try_lock(path)
            if lock is None:
                holder = holder_of(path) or "another process"
                raise LockedError(f"{neighbour} is in use by {holder}.", hint=_ANOTHER)
            release(path, lock)


def _unfinished(place: Path) -> list[Path]:
    """What a killed run was just writing. Raises `OutputExistsError` for a directory that no run wrote."""
    unfinished = unfinished_files(place)
    if not is_of_a_run(place) and not set(place.iterdir()) <= {place / DIRECTORY_LOCK, *unfinished}:
        raise OutputExistsError(f"{place} holds no run to go on with.", hint=_ANOTHER)
    return unfinished


def _replaceable(place: Path, inputs: Sequence[Path | None]) -> list[Path]:
    """What --force removes of a directory. Raises `OutputExistsError` where something in it is to be kept."""
    for path in inputs:
        if path is not None and path.exists() and path.resolve().is_relative_to(place.resolve()):
            raise OutputExistsError(
                f"{place} holds {path}, which this run reads, so --force will not replace it.", hint=_ANOTHER
            )
    ours, foreign = content(place)
    ours = [path for path in ours if path != place / DIRECTORY_LOCK]
    if not foreign and not is_of_a_run(place):
        foreign = [path for path in ours if path not in unfinished_files(place)]
    if foreign:
        names = ", ".join(str(path.relative_to(place)) + "/" * path.is_dir() for path in foreign[:_SHOWN])
        more = f" and {len(foreign) - _SHOWN} more" if len(foreign) > _SHOWN else ""
        raise OutputExistsError(
            f"{place} holds {names}{more}, which no run of mismatchscope wrote, so --force removes nothing.",
            hint=f"move it away, or {_ANOTHER}",
        )
    return ours
