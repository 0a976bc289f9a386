"""What a worker is asked to do for a pass, or to show of the inside of a model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..composition import BatchComposition
from ..prompts.rows import Prompt
from ..records import Evidence, Request, Task
from ..traces.schema import PARTS
from .passes import Inside, Pass


def task_of(pass_: Pass, requests: str, run: str) -> Task:
    """The task that makes the parts of a trace; `run` names what they are made for."""
    return Task(
        name=pass_.trace.name,
        kind="rollout" if pass_.source is None else "score",
        requests=requests,
        parts=str(pass_.trace / PARTS),
        evidence=pass_.evidence,
        policy="raw" if pass_.needs_raw else pass_.policy,
        sampling=pass_.sampling,
        path=pass_.path,
        composition=pass_.composition,
        run=run,
        stages=() if pass_.given is None else pass_.given.stages,
        inputs="" if pass_.given is None else str(pass_.given.directory),
    )


def task_of_inside(inside: Inside, requests: str) -> Task:
    """Each sequence is a forward by itself, so that it has no neighbours to depend on."""
    return Task(
        name=inside.directory.name,
        kind="internals",
        requests=requests,
        parts=str(inside.directory),
        evidence=Evidence("sampled"),
        composition=BatchComposition(batch_size=1),
        stages=inside.stages,
        extent=inside.extent,
        inputs="" if inside.inputs is None else str(inside.inputs),
    )


def rollout_requests(prompts: Sequence[Prompt], samples: int) -> list[Request]:
    """`samples` requests a prompt; the samples of one prompt have neighbouring sequence ids."""
    return [
        Request(
            sequence_id=prompt.prompt_id * samples + sample,
            prompt_id=prompt.prompt_id,
            prompt=prompt.prompt,
            template_arguments=prompt.template_arguments,
            prompt_token_ids=None if prompt.token_ids is None else np.array(prompt.token_ids, dtype=np.int32),
        )
        for prompt in prompts
        for sample in range(samples)
    ]
