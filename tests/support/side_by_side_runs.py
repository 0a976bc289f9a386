"""The same tokens under two settings of transformers, stored whole and side by side, in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from in_process import run_here

from mismatchscope.collection.collector import Collector
from mismatchscope.collection.passes import Beside, Pass, scoring
from mismatchscope.comparison.context import Context
from mismatchscope.comparison.pair import Pair, measure_pair
from mismatchscope.engines.spec import EngineSpec, parse_spec
from mismatchscope.prompts.rows import Prompt
from mismatchscope.records import Evidence, Role, Sampling
from mismatchscope.traces.reader import Trace
from mismatchscope.traces.store import beside_path_of

FULL, SAMPLED = Evidence("full"), Evidence("sampled")
DRAWN = Sampling(max_new_tokens=24, seed=1)

OnEvent = Callable[[dict[str, Any]], None]


class TwoSettings:
    """Tokens that μ's engine drew, and both ways to compare how μ and π score them."""

    def __init__(
        self,
        directory: Path,
        model: Path | str,
        mu: str,
        pi: str,
        *,
        path: str = "prefill",
        roles: tuple[Role, Role] = ("reference", "reference"),
        sampling: Sampling = DRAWN,
    ) -> None:
        rng = np.random.default_rng(0)
        drawn = [tuple(rng.integers(1, 60, rng.integers(1, 9)).tolist()) for _ in range(6)]
        listed = [Prompt(number, None, token_ids=ids) for number, ids in enumerate(drawn)]
        self.directory = directory
        self.collector = Collector(str(model), listed, run=run_here)
        self.mu, self.pi = parse_spec(mu), parse_spec(pi)
        rollout = Pass(directory / "tokens", "behavior", SAMPLED, "processed", sampling)
        self._collect(self.mu, rollout)
        common: dict[str, Any] = {"source": rollout.trace, "path": path}
        self.passes = tuple(
            Pass(directory / name, role, FULL, "processed", scoring(sampling, role, None), **common)
            for name, role in zip(("mu", "pi"), roles, strict=True)
        )

    def stored(self) -> Pair:
        for spec, pass_ in zip((self.mu, self.pi), self.passes, strict=True):
            self._collect(spec, pass_)
        return self.pair(*(self.collector.trace(pass_.trace) for pass_ in self.passes))

    @property
    def together(self) -> Pass:
        mu, pi = self.passes
        beside = Beside(str(self.mu), mu.role, mu.sampling)
        return replace(pi, trace=self.directory / "together", evidence=SAMPLED, beside=beside)

    def side_by_side(self, on_event: OnEvent = lambda event: None) -> Pair:
        pass_ = self.together
        self._collect(self.pi, pass_, on_event)
        return self.pair(*(self.collector.trace(path) for path in (beside_path_of(pass_.trace), pass_.trace)))

    def _collect(self, spec: EngineSpec, pass_: Pass, on_event: OnEvent = lambda event: None) -> None:
        self.collector.collect(spec, [pass_], log_path=self.directory / "log", on_event=on_event)

    def pair(self, mu: Trace, pi: Trace) -> Pair:
        source = self.collector.trace(self.directory / "tokens")
        context = Context.of(source, source, None).of_repeat(mu, source)
        return measure_pair(mu, pi, context)
