"""Whether somebody else could change what a path holds: asked of every file whose content would run.

A file is as safe as every directory above it, because who can write a directory can put another file in its place.
Trusted are the user, root, and the owner of the Python that is running, who decides what runs anyhow; also the
owner of `/`, which is how root looks inside a user namespace that does not map it.

Two kinds of directory look open and are not. A sticky one (/tmp) lets nobody replace what others own, so it may
stand above a file. One that a group can write lets nobody else in where that group consists of the user alone, as
Debian and Fedora give one to everybody (umask 0002).
"""

from __future__ import annotations

import contextlib
import errno
import grp
import logging
import os
import pwd
import stat
import sys
import tempfile
from collections import deque
from functools import cache
from pathlib import Path

_MAX_LINKS = 40  # as the kernel
_ACCESS_LIST = "system.posix_acl_access"
_LAST_SYSTEM_GROUP = 999


def why_unsafe(path: Path) -> str | None:
    """What lets somebody else change `path`, one clause that names file and reason; None where nothing does.

    Every directory on the way is looked at and every symbolic link followed. What is not there cannot be changed:
    it is as safe as the directories above it.
    """
    here, links = Path("/"), 0
    rest = deque(path.absolute().parts[1:])
    if reason := _why_changeable(here, os.lstat(here), last=not rest):
        return reason
    while rest:
        name = rest.popleft()
        entry = here.parent if name == ".." else here / name
        try:
            status = entry.lstat()
        except FileNotFoundError:
            return None
        except OSError as error:
            return f"{entry} cannot be examined: {error.strerror}"
        if reason := _why_changeable(entry, status, last=not rest):
            return reason
        if not stat.S_ISLNK(status.st_mode):
            here = entry
            continue
        links += 1
        if links > _MAX_LINKS:
            return f"{path} leads through too many symbolic links"
        target = Path(os.readlink(entry))
        rest.extendleft(reversed(target.parts))
        if target.is_absolute():
            here = Path(rest.popleft())
    return None


def why_unsafe_within(directory: Path) -> str | None:
    """As `why_unsafe`, of a directory and of everything in it; a link in it is followed to what it leads to."""
    if reason := why_unsafe(directory):
        return reason
    waiting = [str(directory)]
    try:
        while waiting:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    if entry.is_symlink():
                        reason = why_unsafe(Path(entry.path))
                    elif not is_trusted(status.st_uid) or status.st_mode & (stat.S_IWOTH | stat.S_IWGRP):
                        reason = _why_changeable(Path(entry.path), status, last=True)
                    if reason is not None:
                        return reason
                    if stat.S_ISDIR(status.st_mode):
                        waiting.append(entry.path)
    except OSError as error:
        return f"{error.filename} cannot be examined: {error.strerror}"
    return None


def make_private(directory: Path) -> None:
    """Make a directory, and those above it that are not there, so that nobody else can write them, whatever the
    umask is. `OSError` where that is not possible."""
    for place in (*reversed(directory.parents), directory):
        if not place.is_dir():
            place.mkdir(mode=0o700, exist_ok=True)


def private_cache(name: str) -> Path | None:
    """Make the directory of that name where what will run is kept: in the user's cache, or else beside temporary
    files, as for root in the home of another. None, with a warning, where others could write both."""
    places = [Path(tempfile.gettempdir(), f"mismatchscope-{os.geteuid()}-cache")]
    with contextlib.suppress(RuntimeError):  # a user without a home
        places.insert(0, Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mismatchscope")
    reasons: list[str] = []
    for directory in (place.absolute() / name for place in places):
        reason = why_unsafe(directory)
        try:
            if reason is None:
                make_private(directory)
                reason = why_unsafe(directory)
        except OSError as error:
            reason = f"{directory} cannot be made: {error.strerror}"
        if reason is None:
            return directory
        reasons.append(reason)
    hint = "XDG_CACHE_HOME may name a directory that is yours alone"
    logging.getLogger(__name__).warning("What is compiled is not kept, because %s; %s.", reasons[0], hint)
    return None


def is_trusted(user: int) -> bool:
    """Whether a user id is one of those who decide what runs here."""
    return user in _trusted_users(os.geteuid())


@cache
def _trusted_users(current: int) -> frozenset[int]:
    places = ["/", os.path.realpath(sys.executable)] if sys.executable else ["/"]
    return frozenset({0, current, *(os.stat(place).st_uid for place in places)})


def _why_changeable(path: Path, status: os.stat_result, *, last: bool) -> str | None:
    if not is_trusted(status.st_uid):
        return f"{path} belongs to {_name_of(status.st_uid)}"
    if stat.S_ISLNK(status.st_mode):
        return None  # its mode says nothing
    if stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX and not last:
        return None
    if status.st_mode & stat.S_IWOTH:
        return f"everybody can write {path}"
    if status.st_mode & stat.S_IWGRP and not _is_private_group(path, status.st_uid, status.st_gid):
        return f"others in its group can write {path}"
    return None


def _is_private_group(path: Path, owner: int, group: int) -> bool:
    """Whether nobody but those who are trusted can be in a group, and no access list lets others in.

    That is known of root's group, of a system's group that has a file of root's, and of the user's own, which has
    the user's name. Who is in any other may stand in a directory of accounts that lists nobody.
    """
    if _has_access_list(path):
        return False
    try:
        entry, user = grp.getgrgid(group), pwd.getpwuid(os.geteuid())
        members = {pwd.getpwnam(name).pw_uid for name in entry.gr_mem}
    except KeyError:
        return False
    if group != 0:  # which the accounts of halt and shutdown have too
        if entry.gr_name != user.pw_name and not (owner == 0 and group <= _LAST_SYSTEM_GROUP):
            return False
        members |= {other.pw_uid for other in pwd.getpwall() if other.pw_gid == group}
    return all(is_trusted(member) for member in members)


def _has_access_list(path: Path) -> bool:
    """Whether users and groups of a list of its own may use a file; what they may then shows as its group's."""
    try:
        return _ACCESS_LIST in os.listxattr(path)
    except OSError as error:
        return error.errno != errno.EOPNOTSUPP


def _name_of(user: int) -> str:
    try:
        return f"the user {pwd.getpwuid(user).pw_name}"
    except KeyError:
        return f"the user {user}"
