"""Why an installation failed, in one sentence: pip's output read for the few reasons that people can act upon."""

from __future__ import annotations

import bisect
import re
from pathlib import Path

from ..errors import DiskFullError, InstallError, MismatchScopeError, SpecError

LOG_TAIL_LINES = 12
DISK_HINT = "an engine takes 3 GB, with CUDA 12 GB; MISMATCHSCOPE_HOME may name another disk"
_CHECK_INDEX = "check the network and `pip config list`"

_NOT_FOUND = re.compile(
    r"No matching distribution found for (?P<name>[\w.-]+)(?:\[[^\]]*\])?==(?P<version>[^\s;]+)"
)
_REQUIRED_BY = r"(?:[^(\n]* \(from (?P<by>[^)]*)\))?"
_SKIPPED = re.compile(r"that require a different python version: (?P<versions>.*)")
_OTHER_PYTHON = re.compile(r"Package '(?P<name>[^']+)' requires a different Python: \S+ not in '(?P<python>[^']+)'")
_NETWORK = re.compile(
    r"after connection broken by|Max retries exceeded|Failed to establish a new connection|ReadTimeoutError"
    r"|Temporary failure in name resolution|Connection refused|ProxyError"
)


def explain(output: str, step: str, status: int, log_path: Path) -> MismatchScopeError:
    """The error that a failed step ends with, from what the step printed."""
    see_log = f"the whole log is {log_path}"
    if "No space left on device" in output:
        return DiskFullError(f"The disk is full, so '{step}' failed.", hint=DISK_HINT)
    if wheel := _OTHER_PYTHON.search(output):
        return _other_python(wheel["name"], wheel["python"])
    not_found = _NOT_FOUND.search(output)
    if not_found is not None:
        return _not_found(output, not_found["name"], not_found["version"], see_log)
    if _NETWORK.search(output):
        return _offline(see_log)
    tail = "\n".join(output.splitlines()[-LOG_TAIL_LINES:])
    ended = f"was killed by signal {-status}" if status < 0 else f"ended with exit status {status}"
    return InstallError(f"The step '{step}' {ended}.", hint=see_log, log_tail=tail, log_path=str(log_path))


def _not_found(output: str, name: str, version: str, see_log: str) -> MismatchScopeError:
    for listed in _SKIPPED.findall(output):
        if requirement := re.search(rf"(?:^|; ){re.escape(version)} Requires-Python ([^;]*)", listed):
            return _other_python(f"{name} {version}", requirement[1].strip())
    # pip says "X==1 (from versions: …)" of what it was asked for, and of what that requires
    # "X==1; marker (from Y) (from versions: …)".
    wanted = re.escape(f"{name}=={version}")
    match = re.search(rf"requirement {wanted}{_REQUIRED_BY} \(from versions: (?P<versions>[^)]*)\)", output)
    offered = match["versions"].split(", ") if match is not None and match["versions"] != "none" else []
    required_by = match["by"] if match is not None else None
    if not offered and _NETWORK.search(output):
        return _offline(see_log)
    if "+cpu" in version:
        return InstallError(
            f"pip offers no CPU build of {name} {version.partition('+')[0]}.",
            hint=f"add PyTorch's CPU package index to pip's configuration (pip config list shows it); {see_log}",
        )
    if offered and required_by:
        return InstallError(f"pip offers no {name} {version}, which {required_by} requires.", hint=see_log)
    if offered:
        return SpecError(
            f"pip offers no {name} {version} for this machine.",
            hint=f"the nearest versions are {', '.join(_nearest(version, offered))}",
        )
    return InstallError(f"pip finds no {name} at all for this machine.", hint=f"{_CHECK_INDEX}; {see_log}")


def _other_python(what: str, python: str) -> SpecError:
    return SpecError(
        f"{what} needs Python {python}.",
        hint="install mismatchscope with that Python: an environment has the Python that made it",
    )


def _offline(see_log: str) -> InstallError:
    return InstallError("pip cannot reach its package index.", hint=f"{_CHECK_INDEX}; {see_log}")


def _nearest(wanted: str, offered: list[str], count: int = 4) -> list[str]:
    """The offered versions next to the one asked for, in order."""
    from packaging.version import Version

    ordered = sorted(map(Version, offered))
    place = bisect.bisect(ordered, Version(wanted))
    begin = max(0, min(place - count // 2, len(ordered) - count))
    return [str(version) for version in ordered[begin : begin + count]]
