"""Facts about this machine and this interpreter: what of them changes the numbers. Reports carry them.

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

PACKAGES = ("torch", "transformers", "numpy", "pyarrow", "scipy", "safetensors", "jinja2", "matplotlib")

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
    "VLLM_ALLREDUCE_USE_SYMM_MEM",
    "VLLM_ATTENTION_BACKEND",
    "VLLM_BATCH_INVARIANT",
    "VLLM_CPU_ATTN_SPLIT_KV",
    "VLLM_CPU_OMP_THREADS_BIND",
    "VLLM_DISABLED_KERNELS",
    "VLLM_FLOAT32_MATMUL_PRECISION",
    "VLLM_MARLIN_USE_ATOMIC_ADD",
    "VLLM_MLA_DISABLE",
    "VLLM_ROCM_USE_AITER",
    "VLLM_USE_DEEP_GEMM",
    "VLLM_USE_FLASHINFER_SAMPLER",
    "VLLM_USE_V2_MODEL_RUNNER",
    "SGLANG_ENABLE_DETERMINISTIC_INFERENCE",
    "SGLANG_ENABLE_JIT_DEEPGEMM",
    "SGLANG_ENABLE_TORCH_COMPILE",
    "SGLANG_FORCE_FUSED_OP_BACKEND",
    "SGLANG_QUANT_ALLOW_DOWNCASTING",
    "SGLANG_RETURN_ORIGINAL_LOGPROB",
    "SGLANG_ROPE_CACHE_FP32",
    "SGLANG_USE_CPU_ENGINE",
    "SGLANG_USE_SGL_FA3_KERNEL",
)


def machine_facts() -> dict[str, Any]:
    """Machine, packages and variables, JSON-serialisable; None is unknown."""
    return {
        "mismatchscope": __version__,
        "machine": hardware(),
        "packages": {name: package_version(name) for name in PACKAGES},
        "variables": numerics_variables(),
    }


def hardware() -> dict[str, Any]:
    """Python, processor, memory and GPUs of this machine."""
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "gpus": _gpus(),
    }


def package_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def numerics_variables(engine: str | None = None) -> dict[str, str]:
    """Those that are set; with an engine's name, without the ones that only another engine reads."""
    others = tuple(f"{name.upper()}_" for name in ("vllm", "sglang") if engine not in (None, name))
    names = [name for name in NUMERICS_VARIABLES if not name.startswith(others)]
    found = {name: os.fsencode(os.environ[name]) for name in names if name in os.environ}
    # Reports keep them as JSON, which is UTF-8: another byte is spelled out.
    return {name: value.decode(errors="backslashreplace") for name, value in found.items()}


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
        listing = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
    except (subprocess.SubprocessError, OSError):
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in listing.splitlines() if line.count(",") == 2]
    return [{"name": name, "memory": memory, "driver": driver} for name, memory, driver in rows]
