"""SGLang: without a GPU from its Python sources, with the CUDA-only half of its requirements left out.

SGLang publishes one wheel, whose requirements are those of a CUDA machine, and no CPU kernels. Every layer also has
a path in plain torch, which is the one that then runs: what is installed here is what that path needs.
"""

from __future__ import annotations

from pathlib import Path

from .build import Build
from .recipe import Recipe

_TORCH = "torch==2.13.0+cpu"

# What one release needs was found by running it, so another release would need lists of its own.
_CPU_VERSION = "0.5.23"

_REQUIREMENTS = (
    "transformers==5.19.0",
    "tokenizers==0.23.2",
    "numpy",
    "safetensors",
    "scipy",
    "einops",
    "sentencepiece==0.2.1",
    "tiktoken",
    "compressed-tensors==0.18.0",
    "pillow",
    "soundfile==0.13.1",
    # the server and its processes
    "aiohttp",
    "fastapi",
    "uvicorn>=0.51",
    "uvloop",
    "requests",
    "python-multipart",
    "pydantic",
    "orjson",
    "msgspec",
    "pyzmq>=25.1.2",
    "pybase64",
    "prometheus-client>=0.20.0",
    "psutil",
    "setproctitle",
    "watchfiles",
    # tool calls, grammars, and what else it imports at start
    "openai==2.8.0",
    "openai-harmony==0.0.4",
    "interegular",
    "partial_json_parser",
    "jsonschema",
    "IPython",
    "dill",
    "easydict",
    "xxhash",
    "zstandard",
    "distro",
)

# Alone: the requirements of these would bring CUDA builds.
_WITHOUT_REQUIREMENTS = (
    f"sglang=={_CPU_VERSION}",
    "triton==3.9.0",
    "torchvision==0.28.0",
    "apache-tvm-ffi==0.1.11",
    "xgrammar==0.2.7",
    "llguidance==1.9.1",
    "gguf==0.19.0",
    "nvidia-ml-py",
)

_CPU_KERNELS = Path(__file__).with_name("sgl_kernel.py")


def _install_cpu(build: Build) -> None:
    # First and alone: any other package's plain requirement of torch is then met, and no CUDA build comes in.
    build.pip_install(_TORCH, step="install torch for CPU")
    build.pip_install(_TORCH, *_REQUIREMENTS, step="install what SGLang needs")
    build.pip_install("--no-deps", *_WITHOUT_REQUIREMENTS, step=f"install sglang {build.version}")
    _skip_compiled_operators(build.site_packages / "torchvision" / "_meta_registrations.py")
    build.write("sgl_kernel.py", _CPU_KERNELS.read_text(encoding="utf-8"))


def _skip_compiled_operators(registrations: Path) -> None:
    """Let torchvision import without its compiled operators, which are linked against CUDA.

    It describes two of them to torch without asking whether they were loaded, and torch refuses.
    """
    text = registrations.read_text(encoding="utf-8")
    for operator in ("nms", "qnms"):
        decorator = f'@torch.library.register_fake("torchvision::{operator}")\n'
        text = text.replace(decorator, f"@(lambda function: function)  # not loaded: {decorator.lstrip('@')}")
    registrations.write_text(text, encoding="utf-8")


RECIPE = Recipe(
    name="sglang",
    default_version=_CPU_VERSION,
    distribution="sglang",
    cpu_distribution="sglang",
    install_cpu=_install_cpu,
    imports=("sglang", "sglang.srt.managers.scheduler", "sglang.srt.entrypoints.http_server"),
    cpu_versions=(_CPU_VERSION,),
    cpu_variables={"SGLANG_USE_CPU_ENGINE": "1"},
)
