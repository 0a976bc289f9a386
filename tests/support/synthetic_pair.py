"""Two traces of the synthetic engine, made in this process, and what is exactly true of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mismatchscope.engines.synthetic.engine import SyntheticEngine
from mismatchscope.engines.synthetic.policy import Divergences, SyntheticOptions, true_divergences
from mismatchscope.records import Evidence, Policy, Request, Sampling, SequenceRecord, Task
from mismatchscope.traces import Manifest, Trace, write_records

PROMPTS, SAMPLES = 16, 2
FULL, PLAIN = Evidence("full"), Sampling(max_new_tokens=24)
EXACT, SHIFTED = SyntheticOptions(), SyntheticOptions(tv=0.1)


@dataclass(frozen=True)
class Pair:
    """`records` are the behaviour's sequences, from which the truth is computed."""

    behavior: Trace
    reference: Trace
    records: list[SequenceRecord]
    options: tuple[SyntheticOptions, SyntheticOptions]
    sampling: Sampling

    def truth(self, policy: Policy) -> list[Divergences]:
        """The exact divergences of every sequence, by definition, in float64."""
        return [
            true_divergences(*self.options, one.prompt_token_ids, one.response_token_ids, self.sampling, policy)
            for one in self.records
        ]


def make_pair(
    directory: Path,
    *,
    evidence: Evidence = FULL,
    sampling: Sampling = PLAIN,
    policy: Policy = "processed",
    behavior: SyntheticOptions = EXACT,
    reference: SyntheticOptions = SHIFTED,
    prompts: int = PROMPTS,
) -> Pair:
    """Roll out and score, and write both traces; `policy` is the recorded one."""
    task = Task("rollout", "rollout", "", "", evidence=evidence, sampling=sampling)
    requests = [
        Request(prompt * SAMPLES + sample, prompt, prompt_token_ids=np.array([1, prompt + 2], dtype=np.int32))
        for prompt in range(prompts)
        for sample in range(SAMPLES)
    ]
    records = list(SyntheticEngine("synthetic", behavior).rollout(requests, task))
    mu_path = directory / "mu"
    write_records(mu_path, manifest("behavior", "rollout", evidence, sampling), records)
    if policy == "raw" and sampling.transforms:
        mu_path = directory / "mu-raw"
    mu = Trace.open(mu_path)
    trainer = replace(sampling, temperature=sampling.temperature or 1.0, top_k=0, top_p=1.0)
    score = replace(task, kind="score", policy=policy, sampling=trainer)
    scored = SyntheticEngine("synthetic", reference).score(list(mu.requests()), score)
    pi_manifest = manifest("reference", "prefill", evidence, trainer, policy=mu.manifest.policy)
    write_records(directory / "pi", pi_manifest, scored)
    return Pair(mu, Trace.open(directory / "pi"), records, (behavior, reference), sampling)


def manifest(
    role: str, path: str, evidence: Evidence, sampling: Sampling, policy: Policy = "processed", **fields: object
) -> Manifest:
    defaults = {
        "engine": "synthetic",
        "model": {"weights_sha256": "w", "vocabulary_size": 64},
        "sampling": sampling,
        "temperature": 1.0 if policy == "raw" else sampling.temperature,
    }
    return Manifest(role=role, path=path, policy=policy, evidence=evidence, **defaults | fields)
