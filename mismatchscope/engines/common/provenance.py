"""What around an engine changes its numbers: versions, device, threads, torch's switches, environment variables."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import version
from typing import Any

from ...machine import hardware, numerics_variables


def torch_environment(device_type: str, *packages: str) -> dict[str, Any]:
    """The `environment` entry of a manifest for an engine that computes with torch on `device_type`."""
    import torch

    name = torch.cuda.get_device_name() if device_type == "cuda" else hardware()["cpu"]
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "torch": torch.__version__,
        **{package: version(package) for package in packages},
        "device": device_type,
        "device_name": name,
        "cuda": torch.version.cuda,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "cuda_matmul_tf32": torch.backends.cuda.matmul.allow_tf32,
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
        "cuda_reduced_precision_bf16": torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction,
        "variables": numerics_variables(),
    }
