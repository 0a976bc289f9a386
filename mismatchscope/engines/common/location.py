"""Where the files of a model or an adapter lie: in a directory, or in the local copy of a hub repository."""

from __future__ import annotations

from pathlib import Path

from ...errors import ModelError
from .identity import check_files


def locate(model: str, trust_remote_code: bool = False, *, weights: bool = True, download: bool = True) -> Path:
    """The directory of a model, as `snapshot`, with a config.json in it. Raises `ModelError`."""
    directory = snapshot(model, trust_remote_code, weights=weights, download=download)
    if not (directory / "config.json").is_file():
        adapter = (directory / "adapter_config.json").is_file()
        raise ModelError(
            f"{directory} is no model directory: it has no config.json",
            hint=f"it is an adapter: pass its base as --model, and --adapter {model} where the engine takes one"
            if adapter
            else "pass the directory that save_pretrained wrote",
        )
    return directory


def snapshot(model: str, trust_remote_code: bool = False, *, weights: bool = True, download: bool = True) -> Path:
    """The local directory of a path or a hub id, whatever it holds; what is missing of a hub id is downloaded.

    Without `weights`, a download leaves them out; without `download`, the local copy is all there is. Raises
    `ModelError` when it is neither, and for a file in it that no library must open.
    """
    try:
        directory = Path(model).expanduser()
        if directory.is_dir():
            check_files(directory)
            return directory
    except (OSError, RuntimeError) as error:  # a name that is too long, ~NAME of nobody
        raise ModelError(f"{model[:200]!r} cannot be a model: {error}", hint="check the path") from None
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.model", "*.txt", "*.jinja"]
    patterns += ["*.safetensors"] * weights + ["*.py"] * trust_remote_code
    try:
        return Path(snapshot_download(model, allow_patterns=patterns, local_files_only=not download))
    # The hub's errors are OSErrors (no such repository, offline, gated) and ValueErrors (not a repository name).
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{model!r} is neither a directory nor a model that the Hugging Face hub hands out: {error}",
            hint="check the path; a gated model needs `hf auth login`, an offline machine a local directory",
        ) from error
