"""The embedded models are what their card says: loadable, small, one tokenizer, right answers, varied text."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mismatchscope import demo
from mismatchscope.errors import ModelError

MEGABYTE = 1_000_000
SAMPLE = 32  # of the 256 shipped prompts


@pytest.fixture(params=demo.MODELS)
def directory(request: pytest.FixtureRequest) -> Path:
    return demo.model_path(request.param)


def test_unknown_model_names_the_nearest() -> None:
    with pytest.raises(ModelError, match="no embedded model 'dens'") as caught:
        demo.model_path("dens")
    assert caught.value.hint == "Did you mean 'dense'?"


def test_unknown_model_without_a_near_name_lists_them() -> None:
    with pytest.raises(ModelError) as caught:
        demo.model_path("../elsewhere")
    assert caught.value.hint == "The embedded models are: dense, moe."


def test_missing_weights_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_DIRECTORY", tmp_path)
    with pytest.raises(ModelError, match="are missing from this installation"):
        demo.model_path("dense")


def test_import_is_light() -> None:
    heavy = "{'torch', 'transformers', 'numpy', 'pandas', 'pyarrow'} & set(sys.modules)"
    code = f"import sys, mismatchscope.demo; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_model_directory_is_at_most_12_megabytes(directory: Path) -> None:
    assert sum(path.stat().st_size for path in directory.iterdir()) <= 12 * MEGABYTE


def test_configuration_fits_every_engine(directory: Path) -> None:
    config = json.loads((directory / "config.json").read_text())
    assert config["architectures"] == [{"dense": "Qwen3ForCausalLM", "moe": "Qwen3MoeForCausalLM"}[directory.name]]
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"
    assert config["head_dim"] == 64
    assert config["vocab_size"] % 64 == 0
    assert config["max_position_embeddings"] >= 512
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]
    assert "auto_map" not in config
    generation = json.loads((directory / "generation_config.json").read_text())
    assert generation["eos_token_id"] == config["eos_token_id"]
    if directory.name == "moe":
        assert (config["num_experts"], config["num_experts_per_tok"]) == (8, 2)
        # SGLang's Qwen3-MoE has no tied head and would answer from an empty one.
        assert config["tie_word_embeddings"] is False


def test_models_share_one_tokenizer() -> None:
    dense, moe = (demo.model_path(name) / "tokenizer.json" for name in demo.MODELS)
    assert dense.read_bytes() == moe.read_bytes()


@pytest.mark.parametrize(
    "text", ["Question: What is 12 + 305?\nAnswer:", " Añb 😀\t\n  x", "", "<b>&amp;</b>", "٣ 1,234.5"]
)
def test_tokenizer_round_trips(directory: Path, text: str) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_every_digit_is_a_token(directory: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    assert tokenizer.encode("1234567890").tokens == list("1234567890")
    assert [token for token in tokenizer.get_vocab() if sum(map(str.isdigit, token)) > 1] == []


def test_tokenizer_vocabulary_is_the_embedding(directory: Path) -> None:
    transformers = pytest.importorskip("transformers")
    safetensors = pytest.importorskip("safetensors")
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    with safetensors.safe_open(directory / "model.safetensors", "pt") as weights:
        embedding = weights.get_slice("model.embed_tokens.weight")
        assert embedding.get_dtype() == "BF16"
        assert embedding.get_shape()[0] == len(tokenizer) == 1024
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|endoftext|>", "<|pad|>")
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1)


def test_chat_template_is_the_prompt_format(directory: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    messages = [{"role": "user", "content": "What is 2 + 3?"}]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == "Question: What is 2 + 3?\nAnswer:"


@pytest.mark.slow
def test_card_figures_are_reproduced(directory: Path) -> None:
    write_model_card = pytest.importorskip("write_model_card", reason="needs torch and transformers")
    card = json.loads((directory.parent / "model_card.json").read_text())[directory.name]
    figures = write_model_card.measure(directory, write_model_card.read_prompts()[:SAMPLE])
    assert figures["greedy_accuracy"] == pytest.approx(card["greedy_accuracy"], abs=0.15)
    assert figures["mean_entropy"] == pytest.approx(card["mean_entropy"], abs=0.08)
    assert figures["share_p_max_above_0.99"] == pytest.approx(card["share_p_max_above_0.99"], abs=0.08)
    assert figures["greedy_tokens"] == pytest.approx(card["greedy_tokens"], rel=0.2)
    assert figures["sampled_eos_rate"] >= 0.95


def test_card_is_a_real_language_model(directory: Path) -> None:
    """Peaked but varied: an all but certain model would hide every mismatch, a flat one would exaggerate it."""
    card = json.loads((directory.parent / "model_card.json").read_text())[directory.name]
    assert card["greedy_accuracy"] >= 0.85
    assert 0.3 <= card["mean_entropy"] <= 1.0
    assert 0.3 <= card["share_p_max_above_0.99"] <= 0.75
    assert card["greedy_eos_rate"] == 1.0


def test_markdown_card_is_the_json_card() -> None:
    write_model_card = pytest.importorskip("write_model_card", reason="needs torch and transformers")
    directory = demo.prompts_path().parent
    card = json.loads((directory / "model_card.json").read_text())
    rows = write_model_card.read_prompts()
    assert (directory / "MODEL_CARD.md").read_text() == write_model_card.render(card, len(rows))
