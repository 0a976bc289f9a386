"""The same weights under another configuration, and other weights: what the installed command says of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command import run

from mismatchscope.demo import model_path

pytestmark = pytest.mark.slow

ENGINE = "transformers:dtype=float32"
KERNELS = ("kernels", "order", "shapes")


def copied(directory: Path) -> Path:
    return Path(shutil.copytree(model_path("dense"), directory))


def edit_config(model: Path, theta: float) -> None:
    file = model / "config.json"
    config = json.loads(file.read_text())
    config["rope_theta"] = config["rope_parameters"]["rope_theta"] = theta
    file.write_text(json.dumps(config))


@pytest.fixture(scope="module")
def behavior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("differs")
    model = copied(directory / "model")
    done = run("rollout", "--engine", ENGINE, "--model", model, "--limit", "4", "-o", directory / "mu")
    assert done.returncode == 0, done.stderr
    return directory / "mu"


def compared(behavior: Path, model: Path) -> tuple[dict[str, Any], str]:
    """The report of these tokens under another checkpoint, and what the console says of what differs."""
    for step in (
        ("score", behavior, "--engine", ENGINE, "--model", model, "-o", model / "pi"),
        ("compare", behavior, model / "pi", "-o", model / "report"),
    ):
        done = run(*step)
        assert done.returncode == 0, done.stderr
    said = done.stdout.partition("what differs between the two sides")[2].partition("reproduce")[0]
    return json.loads((model / "report" / "report.json").read_text()), " ".join(said.split())


def test_another_rope_theta_under_the_same_weights_is_named(behavior: Path, tmp_path: Path) -> None:
    model = copied(tmp_path / "model")
    edit_config(model, 100.0)
    report, said = compared(behavior, model)
    ranked = [one for one in report["provenance"]["difference"] if one["rank"]]
    assert {one["key"] for one in ranked} == {
        "model.config.rope_theta",
        "model.config.rope_parameters.rope_theta",
    }
    assert report["provenance"]["size"]["beyond"]
    assert not any(word in said for word in KERNELS)
    assert "mean_ratio" not in {alarm["code"] for alarm in report["alarms"]}


def test_other_weights_are_named_and_kernels_are_not(behavior: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    model = copied(tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    changed = {
        name: (value.float() * (1 + 0.2 * torch.randn(value.shape, generator=generator))).to(value.dtype)
        for name, value in weights.items()
    }
    save_file(changed, model / "model.safetensors", metadata={"format": "pt"})
    report, said = compared(behavior, model)
    assert [one["key"] for one in report["provenance"]["difference"] if one["rank"]] == ["model.weights_sha256"]
    assert not any(word in said for word in KERNELS)
    assert "mean_ratio" not in {alarm["code"] for alarm in report["alarms"]}


def test_equal_checkpoints_differ_in_the_path_alone_and_in_no_more_than_rounding(
    behavior: Path, tmp_path: Path
) -> None:
    report, said = compared(behavior, copied(tmp_path / "model"))
    assert [one["key"] for one in report["provenance"]["difference"]] == ["path"]
    size = report["provenance"]["size"]
    assert size is None or not size["beyond"]
    assert "look for another" not in said


def test_a_finished_run_does_not_go_on_with_another_configuration(behavior: Path) -> None:
    model = behavior.parent / "model"
    again = ("rollout", "--engine", ENGINE, "--model", model, "--limit", "4", "-o", behavior, "--resume")
    assert run(*again).returncode == 0
    edit_config(model, 500.0)
    done = run(*again)
    edit_config(model, 10000.0)
    assert done.returncode == 2
    assert "model.config.rope_" in done.stderr
