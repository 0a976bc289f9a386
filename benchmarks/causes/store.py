"""Cases on disk, so that detectors can be tried again on what was made once."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
from cases import Key, Truth

from mismatchscope.diagnosis.evidence import Floor, FullRows, TokenEvidence, TopK

VERSION = 1
"""Counted up when the making of cases changes, so that older ones are made again."""
ARRAYS = (
    "logp_mu_N",
    "logp_pi_N",
    "sequence_N",
    "position_N",
    "prompt_S",
    "token_N",
    "previous_N",
    "prompt_length_S",
)


def place(key: Key, cache: Path, what: str = "cases") -> Path:
    name = re.sub(r"[^a-z0-9]+", "-", f"{key.plant}-{key.number}".lower())
    stack = re.sub(r"[^a-z0-9]+", "-", key.stack)
    return cache / f"{what}-{VERSION}" / key.part / f"{key.model}-{stack}" / f"{name}.npz"


def write(key: Key, evidence: TokenEvidence, truth: Truth, cache: Path) -> None:
    file = place(key, cache)
    file.parent.mkdir(parents=True, exist_ok=True)
    assert evidence.top is not None and evidence.full is not None
    arrays = {name: getattr(evidence, name) for name in ARRAYS}
    arrays |= {f"metadata {name}": value for name, value in evidence.metadata.items()}
    arrays |= {
        "top ids": evidence.top.ids_mu_NK,
        "top mu": evidence.top.logp_mu_NK,
        "top pi": evidence.top.logp_pi_NK,
    }
    arrays |= {"full places": evidence.full.row_M, "full mu": evidence.full.logp_mu_MV}
    arrays |= {"full pi": evidence.full.logp_pi_MV}
    floor = None if evidence.floor is None else asdict(evidence.floor)
    stated = json.dumps({"truth": asdict(truth), "floor": floor}, default=float)
    unfinished = file.with_suffix(f".{os.getpid()}.tmp.npz")
    np.savez(unfinished, stated=np.array(stated), **arrays)
    unfinished.rename(file)


def read(key: Key, cache: Path, head_VH: np.ndarray | None = None) -> tuple[TokenEvidence, Truth]:
    """A case as it was made. The head matrix is the model's and is not kept with each case."""
    stored = np.load(place(key, cache))
    stated = json.loads(str(stored["stated"]))
    truth = stated["truth"]
    top = TopK(stored["top ids"], stored["top mu"], stored["top ids"], stored["top pi"])
    full = FullRows(stored["full places"], stored["full mu"], stored["full pi"])
    floor = stated["floor"]
    evidence = TokenEvidence(
        **{name: stored[name] for name in ARRAYS},
        metadata={
            name.removeprefix("metadata "): stored[name] for name in stored.files if name.startswith("metadata ")
        },
        top=top,
        full=full,
        floor=None if floor is None else Floor(**floor),
        head_VH=head_VH,
        in_order=True,
    )
    causes = tuple(tuple(codes) for codes in truth["causes"])
    return evidence, Truth(causes, truth["severity"], truth["detail"])
