"""What is masked as a credential, and what must not be taken for one."""

from __future__ import annotations

import base64
import html
import random
import string
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from mismatchscope.credentials import MASK, find_credential, keep_key, masked

KEY = "Zq81-hunter-too-9X"

NAMED = [
    "api_key",
    "api-key",
    "apiKey",
    "X-API-Key",
    "OPENAI_API_KEY",
    "hf_token",
    "token",
    "access.token",
    "authorization",
    "Proxy-Authorization",
    "password",
    "db_passwd",
    "client_secret",
    "Set-Cookie",
    "aws_secret_access_key",
    "http_auth",
    "sas_token",
    "azure_storage_key",
    "bearer",
    "credentials",
]
FORMS = [
    "sk-proj-abcDEF1234567890abcd",
    "hf_AbCdEfGhIjKlMnOpQrStUv",
    "ghp_" + "a1B2" * 9,
    "AKIAIOSFODNN7EXAMPLE",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc-123",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
]
TEXTS = [
    ("http://{}@host/v1", "user:hunter2"),
    ("http://{}@host/v1", "hunter2"),
    ("http://{}@host", "u:p/w:x"),
    ("http://host/v1?api_key={}&x=1", "hunter2"),
    ("vllm:api_key={},dtype=bfloat16", "hunter2"),
    ('vllm:hf_overrides={{"a":{{"api_key": "{}"}}}}', "hunter2 and more"),
    (r"{{\"api_key\": \"{}\"}}", "hunter2"),
    ("mismatchscope audit --header 'Authorization: Bearer {}' -o x", "abc"),
    ("mismatchscope audit --api-key {} -o x", "abc"),
    ("AccountName=x;AccountKey={}", "abc123=="),
    ("said: Bearer {}", "abc123def"),
    ("https://hooks.host/services/T0/{}", "aB3dE5fG7hI9jK1lM3nO5pQ7"),
]
HARMLESS: list[Any] = [
    {"weights_sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
    "/models/Qwen/Qwen2.5-0.5B-Instruct",
    "Qwen/Qwen3-30B-A3B-Instruct-2507-FP8",
    "models--Qwen--Qwen2.5-0.5B/snapshots/060db6499f32faf8b98477b0a26969ef7d8b9987",
    "/nix/store/0c3fx1hvrdxm9qa8zqmfkv0wq9p2lcrm-python3/bin/python",
    "runs/0ujtsYcgvSTl8PAuAdqWYSMnLOv/trace",
    "550e8400-e29b-41d4-a716-446655440000",
    "run-2024-11-26T03-35-59-exp17",
    "01ARZ3NDEKTSV4RRFFQ69G5FAV",
    base64.b64encode(b"{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{% endfor %}").decode(),
    {"eos_token": "</s>", "pad_token": "<|endoftext|>", "image_token": "<image>", "eos_token_id": 2},
    {"user_token": 5, "bot_token": "<|bot|>", "id_tokens": 7},
    {"max_tokens": 12, "tokens": ["foo", "bar"], "sort_key": "step1", "use_auth_token": True, "api_key": None},
    {"api_key": "EMPTY", "password": "", "token": "$HF_TOKEN"},
    "key_env=MY_KEY",
    "export MISMATCHSCOPE_API_KEY=…, or name another variable with key_env=",
    "put a list in brackets: key=[a,b]",
    "token_id:306, the wrong token: 306",
    "vllm@http://127.0.0.1:8000:model=served,key_env=MY_KEY",
    "vllm==0.32.0:python=/path/to/venv/bin/python",
    "CutlassFP8ScaledMMLinearKernel Qwen3VLMoeForConditionalGeneration Float8E4M3FNUZTensorCoreGemm",
    "git+ssh://git@github.com/a/b",
    "Linux-5.15.0-1052-aws-x86_64-with-glibc2.35",
]


@pytest.mark.parametrize("name", NAMED)
def test_what_a_name_gives_away_is_masked_and_found_at_any_depth(name: str) -> None:
    for value in ("hunter2", "x", ["hunter2"], {"first": "hunter2"}):
        assert "hunter2" not in str(masked({"a": [{name: value}]})).replace(MASK, "")
        found = find_credential({"a": [{name: value}]}, "hf_overrides")
        assert found is not None and found.startswith("hf_overrides.a.") and name in found
    for pair in ([name, "hunter2"], {"name": name, "value": "hunter2"}):
        assert "hunter2" not in str(masked({"headers": [pair]}))
        assert find_credential([pair], "headers")


def test_a_number_may_be_a_password_and_no_boolean_is() -> None:
    assert masked({"password": 12345, "secret": True}) == {"password": MASK, "secret": True}


@pytest.mark.parametrize("key", FORMS)
def test_what_its_form_gives_away_is_masked_under_any_name(key: str) -> None:
    assert masked(f"before {key} behind") == f"before {MASK} behind"
    assert find_credential({"revision": key}, "others") == "others.revision"


@pytest.mark.parametrize(("text", "key"), TEXTS)
def test_a_credential_within_a_text_is_masked_alone(text: str, key: str) -> None:
    assert masked(text.format(key)) == text.format(MASK)


@pytest.mark.parametrize("value", HARMLESS, ids=str)
def test_what_is_no_credential_stays(value: Any) -> None:
    assert masked(value) == value
    assert find_credential(value, "option") is None


def test_entropy_masks_and_refuses_nothing() -> None:
    rng, alphabet = random.Random(1), string.ascii_letters + string.digits
    keys = ["".join(rng.choices(alphabet, k=40)) for _ in range(300)]
    assert sum(masked(key) == MASK for key in keys) > 280
    assert not any(find_credential(key, "option") for key in keys)
    digests = ["".join(rng.choices("0123456789abcdef", k=length)) for length in (32, 40, 64, 128) * 50]
    assert masked(digests) == digests


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


ENCODINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "percent": lambda key: "".join(f"%{ord(character):02x}" for character in key),
    "percent, twice": lambda key: "".join(f"%25{ord(character):02X}" for character in key),
    "a part of it": lambda key: quote(key).replace("-", "%2D"),
    "base64": encoded,
    "base64 of user and key": lambda key: encoded(f"me:{key}"),
    "base64 of base64": lambda key: encoded(encoded(key)),
    "base64 of percent": lambda key: encoded(quote(key)),
    "base64 for URLs": lambda key: base64.urlsafe_b64encode(b"\xff" + key.encode()).decode(),
    "base64 of UTF-16": lambda key: base64.b64encode(key.encode("utf-16")).decode(),
    "base32": lambda key: base64.b32encode(key.encode()).decode(),
    "hexadecimal": lambda key: key.encode().hex(),
    "JSON's escapes": lambda key: "".join(f"\\u{ord(character):04x}" for character in key),
    "C's escapes": lambda key: "".join(f"\\x{ord(character):02x}" for character in key),
    "HTML's entities": lambda key: "".join(f"&#{ord(character)};" for character in key),
    "HTML": lambda key: html.escape(key.replace("-", "&#45;")),
    "spaced": " ".join,
    "broken over lines": lambda key: f"{key[:9]}\r\n {key[9:]}",
    "an escaped end of line": lambda key: f"{key[:9]}\\n{key[9:]}",
    "coloured": lambda key: f"{key[:9]}\x1b[31m{key[9:]}",
    "a zero width": lambda key: f"{key[:9]}\u200b{key[9:]}",
    "capitals": str.upper,
    "backwards": lambda key: key[::-1],
    "most of it": lambda key: key[:-2],
}


@pytest.mark.parametrize("how", ENCODINGS)
def test_a_kept_key_is_masked_in_every_encoding(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mismatchscope.credentials.kept_keys._kept", set())
    keep_key(KEY)
    echoed = ENCODINGS[how](KEY)
    shown = masked({echoed: [f"the key {echoed} is wrong"]})
    assert MASK in str(shown)
    assert echoed not in str(shown) and not any(piece in str(shown) for piece in echoed.split() if len(piece) > 7)


def test_keys_of_the_environment_are_known_by_the_names_of_their_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", KEY)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/home/me/account.json")
    assert masked(f"{KEY} and /home/me/account.json") == f"{MASK} and /home/me/account.json"


def test_a_short_key_is_masked_as_a_word_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mismatchscope.credentials.kept_keys._kept", set())
    keep_key("abc")
    keep_key("word1")
    assert masked("abc word1 word12") == f"abc {MASK} word12"


@pytest.mark.parametrize(
    "unit",
    ["A", "http://a:", "api_key=\\", 'api_key="', "\\", "bearer ", "-----BEGIN ", " ", 'a"', "--a ", "aB3", "a/"],
)
def test_no_text_takes_long(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", KEY)
    began = time.process_time()
    masked(unit * (50_000 // len(unit)))
    assert time.process_time() - began < 2.0
