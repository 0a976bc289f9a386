"""A stand-in for SGLang's scheduler, and batches for it: steps of its own choice over a model of random logits.

Shapes: B requests, S requests of a step, T response tokens, V vocabulary.
"""

from __future__ import annotations

import numpy as np
import torch

from mismatchscope.engines.common.tokenized import ScoreRequest, TokenizedRequest
from mismatchscope.engines.sglang.capture import Capture
from mismatchscope.engines.sglang.exchange import Batch
from mismatchscope.records import Evidence, Sampling, SequenceRecord, Task

VOCABULARY = 11
LENGTHS = ((1, 3), (7, 5), (4, 1), (12, 4))  # of the prompts and of the responses
FULL, TOPK, SAMPLED = Evidence("full"), Evidence("topk", k=3), Evidence("sampled")
SAMPLINGS = tuple(
    Sampling(temperature, top_p, top_k, max_new_tokens=9)
    for temperature, top_p, top_k in ((1.0, 1.0, 0), (0.6, 0.7, 0), (1.5, 0.9, 4), (0.0, 1.0, 0))
)
EOS = 2


def logits_after(row: int, prefix: list[int]) -> torch.Tensor:
    """What the stand-in's model computes of a prefix: a random [V] that the request and the tokens decide."""
    return torch.from_numpy(np.random.default_rng([row, *prefix]).normal(size=VOCABULARY).astype(np.float32))


def requests(*, scored: bool) -> list[TokenizedRequest]:
    rng = np.random.default_rng(0)
    made = []
    for row, (prompt, response) in enumerate(LENGTHS):
        ids = rng.integers(3, VOCABULARY, prompt + response).astype(np.int32)
        if scored:
            made.append(ScoreRequest(10 + row, row, ids[:prompt], response_token_ids=ids[prompt:]))
        else:
            made.append(TokenizedRequest(10 + row, row, ids[:prompt]))
    return made


def batch(task: Task, number: int = 0) -> Batch:
    asked = requests(scored=task.kind == "score")
    lengths = [response if task.kind == "score" else task.sampling.max_new_tokens for _, response in LENGTHS]
    return Batch(number, task, asked, lengths, [EOS] if task.kind == "rollout" else [])


def rollout(evidence: Evidence = FULL, sampling: Sampling = SAMPLINGS[0]) -> Task:
    return Task("roll", "rollout", "", "", evidence, sampling=sampling)


def score(path: str, evidence: Evidence = FULL, policy: str = "raw", sampling: Sampling = SAMPLINGS[0]) -> Task:
    return Task("score", "score", "", "", evidence, policy, sampling, path)


class Scheduler:
    """Runs a batch in steps of its own choice: prompts in pieces, evictions, and a step too many at every end."""

    def __init__(self, work: Batch, seed: int) -> None:
        self.records: dict[int, SequenceRecord] = {}
        self.capture = Capture(work, lambda record: self.records.update({record.sequence_id: record}))
        self.work, self.rng = work, np.random.default_rng(seed)
        self.known = [list(request.prompt_token_ids) for request in work.requests]
        self.full = [len(known) + length for known, length in zip(self.known, work.lengths, strict=True)]
        self.computed = [0] * len(self.known)
        self.late: set[int] = set()
        self.forgotten: dict[int, int] = {}

    def decode(self) -> dict[int, SequenceRecord]:
        for _ in range(500):
            going_on = [row for row in range(len(self.known)) if not self.ended(row)]
            if not going_on:
                return self.records
            if self.rng.random() < 0.1:
                self.evict(self.rng.choice(going_on))
            rows = self.rng.permutation(going_on)[: self.rng.integers(1, len(going_on) + 1)].tolist()
            rows += sorted(self.late)
            self.step(rows)
        raise AssertionError("the batch does not end")

    def ended(self, row: int) -> bool:
        known, prompt = self.known[row], len(self.work.requests[row].prompt_token_ids)
        return len(known) == self.full[row] or (len(known) > prompt and known[-1] in self.work.stop_ids)

    def evict(self, row: int) -> None:
        """Forget what was computed of a sequence, and the token that was drawn last, if it was not read yet."""
        self.computed[row] = 0
        if len(self.known[row]) > len(self.work.requests[row].prompt_token_ids) and self.rng.random() < 0.5:
            self.forgotten[row] = self.known[row].pop()

    def step(self, rows: list[int]) -> None:
        ends = [
            len(self.known[row])
            if row in self.late
            else int(self.rng.integers(self.computed[row], len(self.known[row]))) + 1
            for row in rows
        ]
        logits = torch.stack(
            [logits_after(row, self.known[row][:end]) for row, end in zip(rows, ends, strict=True)]
        )
        given = logits.clone()
        tokens = self.capture.sample(np.array(rows), np.array(ends), logits).tolist()
        assert torch.equal(logits, given), "SGLang goes on with its logits"
        for row, end, token in zip(rows, ends, tokens, strict=True):
            self.computed[row] = end
            if row in self.late:
                self.late.remove(row)
            elif end == len(self.known[row]):
                self.known[row].append(token)
                assert self.forgotten.pop(row, token) == token, "what was drawn once stays"
                if self.ended(row):
                    self.late.add(row)

    def prefill(self) -> dict[int, SequenceRecord]:
        whole = [[*r.prompt_token_ids, *r.response_token_ids[:-1]] for r in self.work.requests]
        while going_on := [row for row, ids in enumerate(whole) if self.computed[row] < len(ids)]:
            rows = self.rng.permutation(going_on)[: self.rng.integers(1, len(going_on) + 1)].tolist()
            starts = [self.computed[row] for row in rows]
            ends = [int(self.rng.integers(self.computed[row], len(whole[row]))) + 1 for row in rows]
            spans = zip(rows, starts, ends, strict=True)
            states = torch.stack([logits_after(r, whole[r][: p + 1]) for r, s, e in spans for p in range(s, e)])
            counts = np.subtract(ends, starts)
            self.capture.prefill(np.array(rows), np.array(starts), counts, states.__getitem__)
            for row, end in zip(rows, ends, strict=True):
                self.computed[row] = end
        return self.records
