"""Requests as engines run them: token ids of every prompt and, in a score, of every response."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ...records import Request


@dataclass(frozen=True)
class TokenizedRequest(Request):
    """A request whose prompt has been tokenised."""

    # A bare annotation would keep the default None of `Request`.
    prompt_token_ids: np.ndarray = field()  # int32


@dataclass(frozen=True)
class ScoreRequest(TokenizedRequest):
    """A request to score, with its response [T]."""

    response_token_ids: np.ndarray = field(kw_only=True)  # int32
