"""A key that a person types, or that the environment holds, is in nothing that a command writes or shows."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from command import SMALL, SYNTHETIC, run

from mismatchscope.engines.spec import parse_spec, resolve_options
from mismatchscope.errors import SpecError

pytestmark = pytest.mark.slow

KEY = "hunter2-and-more"
IN_ENVIRONMENT = "Zq81-hunter-too-9X"

OPTIONS = [
    'vllm:hf_overrides={{"api_key":"{}"}}',
    'vllm:hf_overrides={{"a":[{{"Authorization":"Bearer {}"}}]}}',
    'vllm:model_loader_extra_config={{"headers":[["X-Api-Key","{}"]]}}',
    'vllm:model_loader_extra_config={{"headers":[{{"name":"x-api-key","value":"{}"}}]}}',
    "vllm:hf_token={}",
    "vllm:token={}",
    "vllm:apiKey={}",
    "vllm:authorization=Bearer {}",
    "vllm:download_dir=s3://me:{}@bucket/model",
    "vllm:download_dir=https://host/model?api_key={}",
    "sglang:api_key={}",
    "transformers:password={}",
    "vllm@http://me:{}@127.0.0.1:8000",
    "vllm@http://{}@127.0.0.1:8000",
    "vllm@http://127.0.0.1:8000/v1?key={}",
    "vllm@http://127.0.0.1:8000#{}",
    "vllm@http://127.0.0.1:8000:key_env={}",
    "vllm@http://127.0.0.1:8000:key_env=hunter2_and_more",
    "vllm@http://127.0.0.1:8000:headers=Authorization: {}",
    "vllm@http://127.0.0.1:8000:model=sk-{}-0123456789",
    "transformers@http://me:{}@127.0.0.1:8000",
]


@pytest.mark.parametrize("spec", OPTIONS)
def test_no_option_carries_a_key_and_no_message_repeats_one(spec: str) -> None:
    with pytest.raises(SpecError) as caught:
        resolve_options(parse_spec(spec.format(KEY)))
    shown = f"{caught.value!r} {caught.value.message} {caught.value.hint}"
    assert KEY not in shown and "hunter2" not in shown


@pytest.mark.parametrize(
    "given",
    [
        ["--behavior", f'vllm:hf_overrides={{"api_key":"{KEY}"}}'],
        ["--set", f"behavior=vllm:api_key={KEY}"],
        ["--behavior", f"vllm:api-key={KEY}"],
        ["--config", "run.toml"],
    ],
    ids=lambda given: given[0],
)
def test_a_key_is_refused_before_anything_is_written(given: list[str], tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(f'[behavior]\nengine = "vllm"\nhf_overrides = {{ "api-key" = "{KEY}" }}\n')
    done = run("audit", *given, "-o", tmp_path / "run", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_what_is_written_of_a_run_is_masked(tmp_path: Path) -> None:
    """A key in a file's name, and one that only its entropy tells: nothing is refused, everything is masked."""
    random = "kJ8sLq2PzX9vBn4MwR7tYc3F"
    prompts = tmp_path / f"{base64.b64encode(IN_ENVIRONMENT.encode()).decode()}.jsonl"
    prompts.write_text("".join(f'{{"prompt_token_ids": [{i}, 2, 3]}}\n' for i in range(1, 9)))
    done = run(
        *("audit", *SYNTHETIC, *SMALL, "--prompts", prompts, "--set", f"model={random}", "-o", tmp_path / "run"),
        SOME_API_KEY=IN_ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    for path in (tmp_path / "run").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert IN_ENVIRONMENT.encode() not in content, path
            assert prompts.stem.encode() not in content, path
            assert random.encode() not in content, path
    assert "[key]" in json.loads((tmp_path / "run" / "run.json").read_text())["prompts"]
    assert "[key]" in json.loads((tmp_path / "run" / "report.json").read_text())["provenance"]["command"]
    assert json.loads((tmp_path / "run" / "behavior" / "manifest.json").read_text())["inputs"]["model"] == "[key]"
    again = run(
        *("audit", *SYNTHETIC, *SMALL, "--prompts", prompts, "--set", f"model={random}", "--resume"),
        *("-o", tmp_path / "run"),
        SOME_API_KEY=IN_ENVIRONMENT,
    )
    assert again.returncode == 0, "what is masked is the same run: " + again.stderr
