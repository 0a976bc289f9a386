"""Compile C files with the system's compiler at first use, and load them with ctypes.

The library is kept in the user's cache directory under a name with two hashes: of everything that it depends on
(the sources, the compiler, the flags and the processor: it is built for exactly this one, and a home directory may
be shared between machines), and of its own content. It is loaded from there only while it is what was written, and
only where nobody else could have changed it; else it is compiled again. It is written under another name and moved
into place, so that processes which compile at the same time never load half a file.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..ownership import private_cache, why_unsafe
from ..temporary import temporary_directory

# `omp simd` needs no OpenMP library. The two -fno flags let comparisons and floor become vector code; neither
# changes a result, unlike -ffast-math.
_FLAGS = ["-O3", "-std=gnu11", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared"]
_NATIVE = ["-march=native"]
_WIDE = ["-mprefer-vector-width=512"]  # gcc keeps to 256 bits where a processor has 512; ours are a tenth faster
_TRIED: tuple[list[str], ...] = ([*_NATIVE, *_WIDE], _NATIVE, [])
"""Not every compiler knows these on every processor."""
_TIMEOUT_S = 120
_MAX_BYTES = 64 * 2**20  # a library has a thousandth


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

    stem = f"kernels-{_fingerprint(sources, command)}"
    directory = private_cache("compiled")
    cached = None if directory is None else _cached(directory, stem)
    if cached is not None:
        with contextlib.suppress(OSError):  # a file system mounted noexec
            return ctypes.CDLL(str(cached))
    try:
        with temporary_directory() as private:
            built = private / f"{stem}.so"
            _compile(sources, command, built)
            kept = None if directory is None else _keep(built, directory)
            if kept is not None:
                with contextlib.suppress(OSError):
                    return ctypes.CDLL(str(kept))
            return ctypes.CDLL(str(built))  # loaded, it needs its file no more
    except OSError as error:
        raise CompileError(f"the compiled library cannot be made or loaded: {error}") from error


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


def _cached(directory: Path, stem: str) -> Path | None:
    """The library in the cache, if it is still what was written and nobody else can change it."""
    for library in sorted(directory.glob(f"{stem}-*.so")):
        if why_unsafe(library) is None and _sha256(library) == library.stem.removeprefix(f"{stem}-"):
            return library
    return None


def _keep(built: Path, directory: Path) -> Path | None:
    """A copy in the cache, in the place of any other of that name; None where nothing can be written there."""
    library = directory / f"{built.stem}-{_sha256(built)}.so"
    try:
        handle, partial = tempfile.mkstemp(prefix=".compiling-", suffix=".so", dir=directory)
        try:
            with open(handle, "wb") as file:
                file.write(built.read_bytes())
            for other in directory.glob(f"{built.stem}-*.so"):
                other.unlink()
            os.replace(partial, library)
        finally:
            Path(partial).unlink(missing_ok=True)
    except OSError:
        return None
    return library


def _sha256(library: Path) -> str | None:
    """The hash of a file; None for what is no file of a library's size."""
    try:
        status = library.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_BYTES:
            return None
        return hashlib.sha256(library.read_bytes()).hexdigest()
    except OSError:
        return None


def _fingerprint(sources: Sequence[Path], command: list[str]) -> str:
    binary = os.stat(command[0])
    parts = [part for source in sources for part in (source.name.encode(), source.read_bytes())]
    parts += [os.fsencode(word) for word in command + _FLAGS + _NATIVE + _WIDE]
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
    for flags in _TRIED:
        result = _run([*command, *_FLAGS, *flags, *c_files, "-o", str(library), "-lm"])
        if result.returncode == 0:
            return
    raise CompileError(f"{command[0]} failed: {result.stderr.strip()[-500:]}")


def _run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(arguments, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise CompileError(f"{arguments[0]} did not finish within {_TIMEOUT_S} s") from error
