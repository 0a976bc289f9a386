"""What is read from a model directory: hashes, facts, tokens, and the refusals."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import CHAT_TEMPLATE, EOS, VOCABULARY, save_model, save_tokenizer

from mismatchscope.engines.common import checkpoint
from mismatchscope.engines.common.checkpoint import Tokenizer, check_prompt, vocabulary_remarks
from mismatchscope.engines.common.identity import identity
from mismatchscope.engines.common.location import locate
from mismatchscope.errors import ModelError, PromptsError
from mismatchscope.records import Request


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("checkpoint") / "tiny", dtype=torch.bfloat16)


def test_describe(model: Path) -> None:
    assert checkpoint.describe(str(model), model) == {
        "name": "tiny",
        "path": str(model),
        "architecture": "Qwen3ForCausalLM",
        "weights_sha256": hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest(),
        "vocabulary_size": VOCABULARY,
        "dtype_stored": "BF16",
        **identity(model),
    }


def test_sharded_weights_hash_as_sha256sum_prints_them(tmp_path: Path) -> None:
    lines = ""
    for name, content in (("a-1.safetensors", b"one"), ("a-2.safetensors", b"two")):
        (tmp_path / name).write_bytes(content)
        lines += f"{hashlib.sha256(content).hexdigest()}  {name}\n"
    before = checkpoint.weights_sha256(tmp_path)
    assert before == hashlib.sha256(lines.encode()).hexdigest()
    (tmp_path / "a-2.safetensors").write_bytes(b"Two")
    assert checkpoint.weights_sha256(tmp_path) != before


def test_missing_directory_and_unknown_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    for name in (str(tmp_path / "nowhere"), "no-such-owner/no-such-model"):
        with pytest.raises(ModelError, match="neither a directory") as caught:
            locate(name)
        assert caught.value.hint
    with pytest.raises(ModelError, match=r"no config\.json"):
        locate(str(tmp_path))


def test_unreadable_files_are_model_errors(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no safetensors"):
        checkpoint.weights_sha256(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(ModelError, match="not a readable safetensors"):
        checkpoint.stored_dtype(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"cannot read .*config\.json"):
        checkpoint.read_config(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot load the tokenizer"):
        Tokenizer(tmp_path)


def test_tokenizer_reads_text_chats_and_ids(tmp_path: Path) -> None:
    save_tokenizer(tmp_path, chat_template=CHAT_TEMPLATE)
    tokenizer = Tokenizer(tmp_path)
    assert tokenizer.encode(Request(0, 0, prompt='! "')).tolist() == [2, 1, 3]
    chat = [{"role": "user", "content": "!"}, {"role": "user", "content": '"'}]
    assert tokenizer.encode(Request(0, 0, prompt=chat)).tolist() == [2, 3]
    given = np.array([5, 6], dtype=np.int32)
    assert tokenizer.encode(Request(0, 0, prompt="!", prompt_token_ids=given)) is given
    assert tokenizer.pieces(np.array([2, 1, 2, EOS])) == ["!", " ", "!", "<eos>"]
    assert tokenizer.text(np.array([2, EOS])) is not None
    assert tokenizer.size == VOCABULARY - 4
    assert tokenizer.sha256 == hashlib.sha256((tmp_path / "tokenizer.json").read_bytes()).hexdigest()


def test_chat_without_a_template_and_text_without_a_tokenizer(tmp_path: Path, model: Path) -> None:
    chat = Request(0, 7, prompt=[{"role": "user", "content": "secret"}])
    with pytest.raises(ModelError, match="no chat template; prompt 7") as caught:
        Tokenizer(model).encode(chat)
    assert "prompt" in caught.value.hint and "secret" not in str(caught.value)
    bare = Tokenizer(tmp_path)
    assert (bare.sha256, bare.size, bare.text(np.array([1])), bare.pieces(np.array([1]))) == (None, 0, None, None)
    with pytest.raises(ModelError, match="no tokenizer"):
        bare.encode(Request(0, 0, prompt="hello"))
    with pytest.raises(PromptsError, match="neither text nor token ids"):
        bare.encode(Request(0, 3))


def test_padded_vocabulary_is_fine_and_ids_without_an_embedding_are_remarked_on(
    model: Path, tmp_path: Path
) -> None:
    tokenizer = Tokenizer(model)
    assert (
        vocabulary_remarks(tokenizer, tokenizer.size) == vocabulary_remarks(tokenizer, tokenizer.size + 100) == []
    )
    assert vocabulary_remarks(Tokenizer(tmp_path), 1) == [], "there is no tokenizer"
    for missing, counted in ((1, "1 id"), (3, "3 ids")):
        [remark] = vocabulary_remarks(tokenizer, tokenizer.size - missing)
        assert f"has {counted} from {tokenizer.size - missing} upwards" in remark
        assert f"with {tokenizer.size - missing} embedding rows" in remark


def test_an_id_of_the_tokenizer_that_has_no_embedding_is_an_error_where_a_prompt_uses_it() -> None:
    token_ids = np.array([1, 64], dtype=np.int32)
    hints = []
    for tokenizer_size in (64, 65):
        with pytest.raises(PromptsError, match="prompt 12 has the token id 64") as caught:
            check_prompt(12, token_ids, vocabulary_size=64, max_length=10, tokenizer_size=tokenizer_size)
        hints.append(caught.value.hint)
    assert "this model's tokenizer" in hints[0] and "no embedding" in hints[1]


@pytest.mark.parametrize(
    ("token_ids", "why"), [([], "empty"), ([1, 64], "token id 64"), ([-1], "token id -1"), ([1] * 10, "10 tokens")]
)
def test_impossible_prompts_are_named(token_ids: list[int], why: str) -> None:
    with pytest.raises(PromptsError, match=f"prompt 12 .*{why}"):
        check_prompt(12, np.array(token_ids, dtype=np.int32), vocabulary_size=64, max_length=10)


def test_stop_ids_come_from_the_most_specific_file(tmp_path: Path) -> None:
    tokenizer = Tokenizer(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert checkpoint.stop_token_ids(tmp_path, tokenizer) == []
    (tmp_path / "config.json").write_text('{"eos_token_id": 0}')
    assert checkpoint.stop_token_ids(tmp_path, tokenizer) == [0]
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [9, 3]}')
    assert checkpoint.stop_token_ids(tmp_path, tokenizer) == [3, 9]
