"""Is a new engine closer to the trainer than the old one? What that question adds to an audit."""

from __future__ import annotations

from dataclasses import replace

from ..collection.passes import Pass, decodes
from ..engines.spec import EngineSpec


def baseline_pass(behavior: Pass, reference: Pass, spec: EngineSpec) -> Pass:
    """The tokens that the new engine drew, forced through the old one by the path that sampling takes.

    They are forced because two versions draw other tokens from one seed. An engine that does not force tokens
    through decoding, as a server, scores by the path that it has. Recorded is what the reference records.
    """
    return replace(
        behavior,
        trace=behavior.trace.with_name("baseline"),
        policy=reference.policy,
        source=reference.source,
        path="decode" if decodes(spec) else "prefill",
    )
