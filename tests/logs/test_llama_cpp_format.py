"""llama.cpp's files: what was quantised is read as far as the codes tell, and two of them are measured whole."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from log_reading import read_all
from log_writers.llama_cpp import row, write_base_file

import mismatchscope as ms
from mismatchscope.errors import MismatchScopeError, NotComparableError, OutputExistsError, TraceError, UsageError
from mismatchscope.logs.formats.llama_cpp import BaseFile, decode
from mismatchscope.logs.reading import open_logs

CONTEXT, CHUNKS = 16, 12
STEP = 16 / 65535


def logp(logits: np.ndarray) -> np.ndarray:
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def text_and_logits(vocabulary: int, spread: float = 2.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    tokens = generator.integers(0, vocabulary, CONTEXT * CHUNKS)
    return tokens, generator.normal(scale=spread, size=(len(tokens), vocabulary))


@pytest.mark.parametrize("vocabulary", [50, 51])
def test_rows_are_what_was_written_within_half_a_step(tmp_path: Path, vocabulary: int) -> None:
    tokens, logits = text_and_logits(vocabulary)
    file = BaseFile(write_base_file(tmp_path / "a.kld", tokens, logits, context=CONTEXT))
    assert (file.chunks, file.rows, file.prompt_tokens) == (CHUNKS, 7, 9)
    for number in range(CHUNKS):
        chunk = file.chunk(number)
        start = number * CONTEXT
        assert chunk.prompt.tolist() == tokens[start : start + 9].tolist()
        assert chunk.response.tolist() == tokens[start + 9 : start + 16].tolist()
        expected = logp(logits[start + 8 : start + 15])
        np.testing.assert_allclose(chunk.logp_RV, expected, atol=STEP)
        np.testing.assert_allclose(np.logaddexp.reduce(chunk.logp_RV.astype(float), axis=1), 0, atol=1e-6)


def test_ids_below_the_floor_share_what_the_others_leave() -> None:
    """What is above the floor keeps its log-prob, though 16 nats below the top there are 100 000 ids."""
    generator = np.random.default_rng(1)
    logits_V = np.concatenate([[0.0, -3.0, -9.0], generator.normal(-17.5, 0.3, 100_000)])
    codes = np.frombuffer(row(logits_V.astype(np.float32)), "<u2")
    step, floor = codes[:4].copy().view("<f4")
    logp_V = np.empty(len(logits_V), np.float32)
    below = decode(codes[4 : 4 + len(logits_V)], float(step), float(floor), logp_V)
    expected_V = logp(logits_V)
    np.testing.assert_allclose(logp_V[:3], expected_V[:3], atol=1.5 * STEP)
    assert below == pytest.approx(np.exp(expected_V[3:]).sum(), abs=2e-4)
    assert np.logaddexp.reduce(logp_V.astype(float)) == pytest.approx(0, abs=1e-6)
    all_at_the_floor = 100_000 * np.exp(float(floor))
    assert all_at_the_floor > 4 * below  # what taking the floor for a log-prob would give them


def test_equal_logits_have_no_step() -> None:
    codes = np.frombuffer(row(np.zeros(8, np.float32)), "<u2")
    step, floor = codes[:4].copy().view("<f4")
    assert step == 0
    logp_V = np.empty(8, np.float32)
    decode(codes[4:12], float(step), float(floor), logp_V)
    np.testing.assert_allclose(logp_V, -np.log(8), atol=1e-6)


def write_two(directory: Path, noise: float, **options: int) -> tuple[Path, Path, np.ndarray, np.ndarray]:
    tokens, logits = text_and_logits(64)
    other = logits + np.random.default_rng(5).normal(scale=noise, size=logits.shape)
    first = write_base_file(directory / "z-first.kld", tokens, logits, context=CONTEXT)
    second = write_base_file(directory / "a-second.kld", tokens, other, context=CONTEXT, **options)
    states = [chunk * CONTEXT + state for chunk in range(CHUNKS) for state in range(8, 15)]
    return first, second, logp(logits)[states], logp(other)[states]


def test_two_files_are_measured_with_their_whole_vocabulary(tmp_path: Path) -> None:
    """In the order in which they are named; KL tells which is μ."""
    first, second, mu_NV, pi_NV = write_two(tmp_path, 0.3)
    report = ms.analyze([first, second], convert=tmp_path / "traces")
    kl_N = (np.exp(mu_NV) * (mu_NV - pi_NV)).sum(axis=1)
    tv_N = 0.5 * np.abs(np.exp(mu_NV) - np.exp(pi_NV)).sum(axis=1)
    assert report.evidence == "full"
    assert report.counts.tokens == len(mu_NV)
    assert report.token.kl is not None and report.token.tv is not None
    assert report.token.kl.mean == pytest.approx(kl_N.mean(), rel=2e-3)
    assert report.token.tv.mean == pytest.approx(tv_N.mean(), rel=2e-3)
    assert report.alpha1.observed_max == pytest.approx(tv_N.max(), rel=2e-3)
    assert ms.open_trace(tmp_path / "traces" / "behavior").manifest.settings["log"]["format"] == "llama-cpp"
    swapped = ms.analyze([second, first])
    reverse_N = (np.exp(pi_NV) * (pi_NV - mu_NV)).sum(axis=1)
    assert swapped.token.kl is not None
    assert swapped.token.kl.mean == pytest.approx(reverse_N.mean(), rel=2e-3)


def test_nothing_is_said_as_if_the_text_had_been_drawn(tmp_path: Path) -> None:
    first, second, _, _ = write_two(tmp_path, 0.3)
    report = ms.analyze([first, second])
    assert report.sequence.tv is None
    codes = {alarm.code for alarm in report.alarms}
    assert "given_tokens" in codes
    assert not codes & {"ratio", "temperature", "off_policy_tokens"}
    assert any("steps of up to 2.4e-04 nats" in alarm.message for alarm in report.alarms)


def test_two_files_with_one_content_are_the_same_policy(tmp_path: Path) -> None:
    first, second, _, _ = write_two(tmp_path, 0.0)
    assert first.read_bytes() == second.read_bytes()
    report = ms.analyze([first, second])
    assert report.token.tv is not None and report.token.tv.mean == 0
    with pytest.raises(UsageError, match=r"needs two files of llama\.cpp, these are 1"):
        ms.analyze([first, first])


def test_the_chunks_of_a_run_that_was_stopped_are_compared(tmp_path: Path) -> None:
    first, second, _, _ = write_two(tmp_path, 0.1)
    second.write_bytes(second.read_bytes()[:-5])
    report = ms.analyze([first, second])
    assert report.counts.sequences == CHUNKS - 1
    assert any(
        f"Of the {CHUNKS} chunks of a-second.kld {CHUNKS - 1} are" in alarm.message for alarm in report.alarms
    )


def test_a_file_alone_holds_one_policy(tmp_path: Path) -> None:
    first, _, mu_NV, _ = write_two(tmp_path, 0.1)
    with pytest.raises(UsageError, match="needs two files"):
        ms.analyze(first)
    rows, rejected, _ = read_all(open_logs([first]))
    assert not rejected
    tokens = np.concatenate(rows["token_ids"].to_pylist())
    found = np.concatenate(rows["behavior_logprobs"].to_pylist())
    np.testing.assert_allclose(found, mu_NV[np.arange(len(tokens)), tokens], atol=STEP)


def test_other_texts_are_not_compared(tmp_path: Path) -> None:
    first, second, _, _ = write_two(tmp_path, 0.1)
    tokens, logits = text_and_logits(64, seed=9)
    write_base_file(second, tokens, logits, context=CONTEXT)
    with pytest.raises(NotComparableError, match="are of other texts"):
        ms.analyze([first, second])
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(OutputExistsError):
        ms.analyze([first, second], convert=tmp_path / "taken")


def header(context: int, vocabulary: int, chunks: int) -> bytes:
    return b"_logits_" + struct.pack("<iii", context, vocabulary, chunks)


BROKEN = {
    "no header": b"_logits_\x10",
    "a billion chunks": header(512, 150_000, 2**30) + bytes(100),
    "a billion ids": header(512, 2**30, 1) + bytes(10_000),
    "a negative vocabulary": header(512, -1, 1) + bytes(10_000),
    "no context": header(0, 8, 1) + bytes(100),
    "a context of one": header(1, 8, 1) + bytes(100),
    "more than it says": header(4, 8, 1) + bytes(16 + 24 + 1),
    "tokens outside": header(4, 8, 1) + struct.pack("<4i", 0, 1, 8, 2) + bytes(24),
    "negative tokens": header(4, 8, 1) + struct.pack("<4i", 0, 1, -8, 2) + bytes(24),
    "a step of NaN": header(4, 8, 1) + bytes(16) + struct.pack("<ff", float("nan"), -1.0) + bytes(16),
    "a floor above 0": header(4, 8, 1) + bytes(16) + struct.pack("<ff", 0.1, 1.0) + bytes(16),
    "a floor of -inf": header(4, 8, 1) + bytes(16) + struct.pack("<ff", 0.1, float("-inf")) + bytes(16),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused(tmp_path: Path, name: str) -> None:
    for file in ("a.kld", "b.kld"):
        (tmp_path / file).write_bytes(BROKEN[name])
    with pytest.raises(TraceError, match=r"a\.kld cannot be read"):
        read_all(open_logs([tmp_path / "a.kld"]))
    (tmp_path / "b.kld").write_bytes(BROKEN[name] + b"")
    with pytest.raises(MismatchScopeError):
        ms.analyze([tmp_path / "a.kld", tmp_path / "b.kld"])
