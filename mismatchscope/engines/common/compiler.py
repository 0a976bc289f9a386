"""Whether torch.compile can work here, found out in a second and not after minutes of loading and tracing."""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from ...errors import EngineError
from ...ownership import private_cache, why_unsafe
from ...temporary import temporary_directory

_SECONDS = 30
# What generated code includes, and so needs to be there: on a GPU Triton's launcher, else Inductor's kernels.
_TRITON = "#include <Python.h>\n"
_INDUCTOR = "#include <Python.h>\n#include <algorithm>\n" + (
    "" if sys.platform == "darwin" else "#include <omp.h>\n"
)
_CACHES = {
    "TORCHINDUCTOR_CACHE_DIR": None,
    "TRITON_CACHE_DIR": "~/.triton/cache",
    "VLLM_CACHE_ROOT": "~/.cache/vllm",
}
_PACKAGES = {
    "Python.h": "the headers of Python (python3-dev, python3-devel)",
    "omp.h": "OpenMP's (libgomp comes with gcc; for clang libomp-dev)",
}


def check_compiler(engine: str, way_out: str, *, gpu: bool) -> None:
    """Build a library as torch.compile will: Inductor with a C++ compiler, Triton on a GPU with a C compiler.

    Raises `EngineError` where there is no Triton for a GPU, no compiler, or one that cannot build what includes
    Python's headers; `way_out` is the option that needs none. Says nothing where torch.compile is switched off.
    Compiled code that others could change is not taken from the caches of torch, Triton and vLLM.
    """
    if any(os.environ.get(name) == "1" for name in ("TORCH_COMPILE_DISABLE", "TORCHDYNAMO_DISABLE")):
        return
    if gpu and importlib.util.find_spec("triton") is None:
        raise EngineError(
            f"{engine} would compile its model, and {sys.executable} has no triton, which that needs on a GPU.",
            hint=f"{way_out}; or {sys.executable} -m pip install triton",
        )
    _use_own_caches()
    compiler, variable = _compiler(gpu)
    try:
        complaint = _build(compiler, gpu)
    except OSError:
        raise EngineError(
            f"{engine} would compile its model, and the compiler {compiler} cannot be started.",
            hint=f"{way_out}; or install {'gcc' if gpu else 'g++'}, or set {variable}",
        ) from None
    except subprocess.TimeoutExpired:
        return  # slow is not broken
    if complaint is None:
        return
    missing = next((header for header in _PACKAGES if header in complaint), None)
    if missing is not None:
        where = f" in {sysconfig.get_path('include')}" if missing == "Python.h" else ""
        raise EngineError(
            f"{engine} would compile its model, and the compiler {compiler} finds no {missing}{where}.",
            hint=f"{way_out}; or install {_PACKAGES[missing]}",
        )
    raise EngineError(
        f"{engine} would compile its model, and the compiler {compiler} does not work: {complaint}",
        hint=f"{way_out}; or set {variable} to one that does",
    )


def _use_own_caches() -> None:
    """Point what compiles at caches that nobody else can write, before it reads their variables.

    Inductor's own default is a name in /tmp that anybody may take first; of the others the default is in the
    user's home, and stays unless that is open to others.
    """
    for variable, default in _CACHES.items():
        chosen = os.environ.get(variable) or default
        if chosen is not None and why_unsafe(Path(os.path.expanduser(chosen))) is None:
            continue
        own = private_cache(variable.lower())
        if own is None:  # it is compiled anew each time
            of_this_process = contextlib.ExitStack()
            atexit.register(of_this_process.close)
            own = of_this_process.enter_context(temporary_directory())
        os.environ[variable] = str(own)


def _compiler(gpu: bool) -> tuple[str, str]:
    """The compiler that Triton or Inductor takes, and the variable that names another."""
    if gpu:
        return os.environ.get("CC") or (
            "clang" if not shutil.which("gcc") and shutil.which("clang") else "gcc"
        ), "CC"
    return os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++"), "CXX"


def _build(compiler: str, gpu: bool) -> str | None:
    """Compile and link a library that does nothing; the compiler's first complaint, None where it has none."""
    program, language = (_TRITON, "c") if gpu else (_INDUCTOR, "c++")
    flags = ["-shared", "-fPIC", f"-I{sysconfig.get_path('include')}"]
    if sys.platform == "darwin":
        flags += ["-undefined", "dynamic_lookup"]
    elif not gpu:
        flags += ["-fopenmp"]
    with temporary_directory() as directory:
        command = [compiler, "-x", language, *flags, "-", "-o", os.path.join(directory, "probe.so")]
        done = subprocess.run(command, input=program, capture_output=True, text=True, timeout=_SECONDS)
    if done.returncode == 0:
        return None
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return next(
        (line for line in lines if "error" in line), lines[0] if lines else f"exit status {done.returncode}"
    )
