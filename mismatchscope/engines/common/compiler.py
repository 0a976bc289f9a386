"""Whether torch.compile can work here, found out in a second and not after minutes of loading and tracing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig

from ...errors import EngineError
from ...machine import hardware

_SECONDS = 30
# What a compiled graph includes, and so needs to be there: Python's own header.
_PROGRAM = "#include <Python.h>\nint main() { return 0; }\n"


def check_compiler(engine: str, way_out: str) -> None:
    """Compile a line as torch.compile will: Inductor with a C++ compiler, on a GPU Triton with a C compiler.

    Raises `EngineError` where there is none, or where it does not find Python's headers; `way_out` is the option
    that needs no compiler.
    """
    headers = sysconfig.get_path("include")
    language, variable, usual = ("c", "CC", ("gcc", "clang")) if hardware()["gpus"] else ("c++", "CXX", ("g++",))
    name = os.environ.get(variable) or next((each for each in usual if shutil.which(each)), usual[0])
    command = [name, "-x", language, "-fsyntax-only", f"-I{headers}", "-"]
    try:
        done = subprocess.run(command, input=_PROGRAM, capture_output=True, text=True, timeout=_SECONDS)
    except OSError:
        raise EngineError(
            f"{engine} would compile its model, and the compiler {name} cannot be started.",
            hint=f"{way_out}; or install {usual[0]}, or set {variable}",
        ) from None
    except subprocess.TimeoutExpired:
        return  # slow is not broken
    if done.returncode == 0:
        return
    if "Python.h" in done.stderr:
        raise EngineError(
            f"{engine} would compile its model, and the headers of Python are not in {headers}.",
            hint=f"{way_out}; or install them (python3-dev, python3-devel)",
        )
    first = next((line for line in done.stderr.splitlines() if line.strip()), f"exit status {done.returncode}")
    raise EngineError(
        f"{engine} would compile its model, and the compiler {name} does not work: {first.strip()}",
        hint=f"{way_out}; or set {variable} to one that does",
    )
