"""What a request must have, at run time as in its type."""

from __future__ import annotations

import numpy as np
import pytest

from mismatchscope.engines.common.tokenized import ScoreRequest, TokenizedRequest


def test_the_prompt_is_not_optional() -> None:
    with pytest.raises(TypeError, match="prompt_token_ids"):
        TokenizedRequest(0, 0)


def test_the_response_to_score_is_not_optional() -> None:
    with pytest.raises(TypeError, match="response_token_ids"):
        ScoreRequest(0, 0, np.array([1]))
