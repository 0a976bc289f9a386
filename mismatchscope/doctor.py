"""Facts about this machine and about every engine on it; `doctor --json` prints them and reports carry them.

Nothing heavy is imported: versions come from package metadata, the GPU from its driver's own command.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from typing import Any

from . import __version__
from .errors import SpecError

PACKAGES = ("torch", "transformers", "numpy", "pandas", "pyarrow", "scipy", "safetensors", "jinja2", "matplotlib")

# Variables that change kernels, threads or precision, and so the numbers.
NUMERICS_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "MKL_CBWR",
    "CUDA_VISIBLE_DEVICES",
    "CUBLAS_WORKSPACE_CONFIG",
    "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "ATEN_CPU_CAPABILITY",
    "PYTORCH_CUDA_ALLOC_CONF",
    "VLLM_ATTENTION_BACKEND",
    "VLLM_BATCH_INVARIANT",
)


def examine() -> dict[str, Any]:
    """Machine, packages, variables and engines, JSON-serialisable. What cannot be learnt is None."""
    return {
        "mismatchscope": __version__,
        "machine": machine(),
        "packages": {name: package_version(name) for name in PACKAGES},
        "variables": numerics_variables(),
        "engines": engines(),
    }


def machine() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "gpus": _gpus(),
    }


def engines() -> list[dict[str, Any]]:
    """Every registered engine: what it can see, whether it can run here, and what to type if it cannot."""
    from .engines.registry import engine_class, engine_names

    found = []
    for name in engine_names():
        try:
            engine = engine_class(name)
        except (SpecError, ImportError) as error:
            found.append({"engine": name, "ready": False, "why": str(error)})
            continue
        capabilities = engine.capabilities
        needs = [package for package in _NEEDS.get(name, ()) if package_version(package) is None]
        found.append(
            {
                "engine": name,
                "ready": not needs,
                "why": f"missing {', '.join(needs)}: pip install 'mismatchscope[torch]'" if needs else None,
                "version": package_version(name),
                "evidence": list(capabilities.evidence),
                "paths": list(capabilities.paths),
            }
        )
    return found


_NEEDS = {"transformers": ("torch", "transformers")}


def package_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def numerics_variables() -> dict[str, str]:
    return {name: os.environ[name] for name in NUMERICS_VARIABLES if name in os.environ}


def _cpu_name() -> str | None:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), None)
    except OSError:
        return platform.processor() or None


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _gpus() -> list[dict[str, str]]:
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    query = [command, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
    except (subprocess.SubprocessError, OSError):
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in answer.splitlines() if line.count(",") == 2]
    return [{"name": name, "memory": memory, "driver": driver} for name, memory, driver in rows]
