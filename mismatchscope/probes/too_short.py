"""Settings that act on long prompts alone, where no prompt is so long."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..records import Evidence, Request
from ..traces.reader import Trace
from .plan import Setting


def too_short(settings: Iterable[Setting], drawn: Callable[[], Trace]) -> dict[Setting, str]:
    """Why there is nothing to try those settings on that act on more tokens than any prompt that was `drawn` has,
    or in a prefill any sequence."""
    missing: dict[Setting, str] = {}
    for setting in settings:
        if not setting.longer_than:
            continue
        whole = setting.path == "prefill"
        longest = max(_tokens_read(request, whole) for request in drawn().requests(Evidence("sampled")))
        if longest <= setting.longer_than:
            missing[setting] = f"no {'sequence' if whole else 'prompt'} has more than {setting.longer_than} tokens"
    return missing


def _tokens_read(request: Request, whole: bool) -> int:
    prompt, response = request.prompt_token_ids, request.response_token_ids
    assert prompt is not None and response is not None, "a trace has tokens"
    return len(prompt) + (len(response) - 1 if whole else 0)
