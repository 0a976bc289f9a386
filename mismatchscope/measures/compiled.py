"""Compile C files with the system's compiler at first use, and load them with ctypes.

The library is kept in the user's cache directory under a name that is a hash of everything that it depends
on: the sources, the compiler, the flags and the processor (it is built for exactly this one, and a home
directory may be shared between machines). It is written under another name and moved into place, so that
processes which compile at the same time never load half a file.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

# `omp simd` needs no OpenMP library. The two -fno flags let comparisons and floor become vector code; neither
# changes a result, unlike -ffast-math.
_FLAGS = ["-O3", "-std=gnu11", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared"]
_NATIVE = ["-march=native"]  # not every compiler knows it on every processor
_TIMEOUT_S = 120


class CompileError(Exception):
    """There is no compiler, or it refused the file; the message says which."""


def load(sources: Sequence[Path]) -> ctypes.CDLL:
    """The shared library compiled from the `.c` files of `sources` by `$CC`, or else `cc`.

    `sources` also names every other file that these include.

    Raises:
        CompileError: there is no such compiler, or it failed.
    """
    command = _compiler_command()
    compiler = shutil.which(command[0])
    if compiler is None:
        raise CompileError(f"there is no C compiler {command[0]!r} on PATH")
    command[0] = compiler

    name = f"kernels-{_fingerprint(sources, command)}.so"
    try:
        directory = _cache_directory()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        library = directory / name
        if not library.exists():
            _compile(sources, command, library)
        return ctypes.CDLL(str(library))
    except OSError:  # a read-only home, a full disk, a file system mounted noexec: this process gets its own
        with tempfile.TemporaryDirectory(prefix="mismatchscope-") as private:
            library = Path(private) / name
            _compile(sources, command, library)
            try:
                return ctypes.CDLL(str(library))
            except OSError as error:
                raise CompileError(f"the compiled library cannot be loaded: {error}") from error


def _compiler_command() -> list[str]:
    """`$CC`, which may have arguments, or `cc`. Raises `CompileError` for one that is no command."""
    named = os.environ.get("CC") or "cc"
    try:
        command = shlex.split(named)
    except ValueError as error:
        raise CompileError(f"CC={named!r} is no command: {error}") from error
    if not command:
        raise CompileError(f"CC={named!r} is no command")
    return command


def _cache_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mismatchscope" / "compiled"


def _fingerprint(sources: Sequence[Path], command: list[str]) -> str:
    binary = os.stat(command[0])
    parts = [part for source in sources for part in (source.name.encode(), source.read_bytes())]
    parts += [os.fsencode(word) for word in command + _FLAGS + _NATIVE]
    parts += [f"{binary.st_size} {binary.st_mtime_ns}".encode(), _processor().encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:24]


def _processor() -> str:
    """What `-march=native` looks at: the first processor's model and feature flags."""
    try:
        with open("/proc/cpuinfo") as cpuinfo:
            first = cpuinfo.read().split("\n\n", 1)[0]
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    named = ("vendor_id", "model name", "flags", "Features", "CPU implementer", "CPU part")
    return "\n".join(line for line in first.splitlines() if line.startswith(named))


def _compile(sources: Sequence[Path], command: list[str], library: Path) -> None:
    c_files = [str(source) for source in sources if source.suffix == ".c"]
    handle, partial = tempfile.mkstemp(prefix=".compiling-", suffix=".so", dir=library.parent)
    os.close(handle)
    try:
        for native in (_NATIVE, []):
            arguments = [*command, *_FLAGS, *native, *c_files, "-o", partial, "-lm"]
            result = _run(arguments)
            if result.returncode == 0:
                os.replace(partial, library)
                return
        raise CompileError(f"{command[0]} failed: {result.stderr.strip()[-500:]}")
    finally:
        Path(partial).unlink(missing_ok=True)


def _run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(arguments, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise CompileError(f"{arguments[0]} did not finish within {_TIMEOUT_S} s") from error
