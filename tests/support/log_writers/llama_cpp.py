"""Files as llama.cpp's perplexity tool writes them with --kl-divergence-base, in its own float32 arithmetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write_base_file(
    path: Path, tokens: np.ndarray, logits_SV: np.ndarray, *, context: int, chunks: int | None = None
) -> Path:
    """Chunks of `context` tokens of a text, and the logits [S, V] at each of its states.

    chunks: so many are declared, where a run was stopped before it had written all.
    """
    vocabulary = logits_SV.shape[1]
    there = len(tokens) // context
    declared = there if chunks is None else chunks
    told = np.resize(tokens[: there * context], declared * context)
    out = bytearray(b"_logits_" + np.array([context, vocabulary, declared], "<i4").tobytes())
    out += told.astype("<i4").tobytes()
    for chunk in range(there):
        for state in range(context // 2, context - 1):
            out += row(logits_SV[chunk * context + state].astype(np.float32))
    path.write_bytes(out)
    return path


def row(logits_V: np.ndarray) -> bytes:
    """`log_softmax` of one state: step, floor, codes, and one more where the vocabulary is odd."""
    largest = logits_V.max()
    floor = np.float32(max(logits_V.min(), largest - np.float32(16)))
    log_sum = np.float32(np.log(np.exp((logits_V - largest).astype(np.float32)).astype(np.float64).sum()))
    step = np.float32((largest - floor) / np.float32(65535))
    codes = np.zeros(2 * ((len(logits_V) + 1) // 2), "<u2")
    if step:
        inverse = np.float32(1) / step
        scaled = np.rint((inverse * (logits_V - floor)).astype(np.float32))
        codes[: len(logits_V)] = np.where(logits_V > floor, scaled, 0)
    return np.array([step, floor - largest - log_sum], "<f4").tobytes() + codes.tobytes()
