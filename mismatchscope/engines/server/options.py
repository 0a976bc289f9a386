"""What a SPEC with a URL may say."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import SpecError
from ..base import Options, option
from .credentials import check_url, check_variable, read_key

DEFAULT_KEY_VARIABLE = "MISMATCHSCOPE_API_KEY"


@dataclass(frozen=True)
class ServerOptions(Options):
    """The keys of a SPEC with a URL."""

    url: str = option("", "the server, written behind the engine's name: vllm@http://127.0.0.1:8000")
    model: str = option("", "served name of the model; empty: the one named like --model, or the only one")
    concurrency: int = option(16, "requests under way at the same time")
    batch_size: int = option(64, "sequences handed over before the next ones are; all of their answers are awaited")
    timeout: float = option(
        600.0, "seconds for one answer; a request with its further attempts ends after twice as many"
    )
    retries: int = option(5, "further attempts where the server is busy, broken or away")
    key_env: str = option(DEFAULT_KEY_VARIABLE, "environment variable that holds the bearer key")

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", check_url(self.url))
        check_variable(self.key_env, DEFAULT_KEY_VARIABLE)
        read_key(self.key_env)  # from here on it is masked, in this process too
        for key, least in (("concurrency", 1), ("batch_size", 1), ("timeout", 0.001), ("retries", 0)):
            if not least <= getattr(self, key) < float("inf"):
                raise SpecError(
                    f"{key}={getattr(self, key)} is not a number from {least} on.", hint=f"{key}={least}"
                )
