"""May two traces be compared at all, as far as their manifests say? Their tokens are looked at in `alignment`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ..errors import MisalignedError, NotComparableError
from ..records import EvidenceLevel
from ..reports.sampling_keys import DRAWS, sampling_differences
from ..traces.reader import Trace
from ..traces.schema import Manifest
from .full_states import NEGLIGIBLE_MASS

SAME_TOKENIZER = "the two sides must run models with the same tokenizer"
BESIDE = (
    "Both policies were computed side by side in one process, where their whole distributions were compared; "
    "none is stored."
)


def check_comparable(behavior: Manifest, reference: Manifest) -> list[str]:
    """Remarks on two manifests. Raises `NotComparableError` when they answer different questions.

    The remarks that the manifests bring along come first. Different weights are no error: staleness is a thing that
    people measure.
    """
    _check_policies(behavior, reference)
    notes = list(dict.fromkeys([*behavior.notes, *reference.notes]))
    temperatures = behavior.temperature, reference.temperature
    if behavior.policy == "processed" and None not in temperatures and temperatures[0] != temperatures[1]:
        notes.append(f"Logits were divided by {temperatures[0]} on one side and by {temperatures[1]} on the other.")
    notes += _sampling_notes(behavior, reference)
    if _differ(behavior.tokenizer_sha256, reference.tokenizer_sha256):
        notes.append("The tokenizer files of the two sides differ, though the token ids agree.")
    return notes


def check_vocabularies(
    behavior: Trace, reference: Trace, *, largest_id: int, padding_mass: float | None
) -> list[str]:
    """Remarks on two vocabularies. Padding, ids that one side has beyond those of the other, is recognised.

    `largest_id` is the largest one in any response; `padding_mass` the largest mass that a state has on padding,
    None where it was not observed. Raises `MisalignedError` when a response has an id outside a vocabulary, or
    when sizes and tokenizers both differ and the padding is not excluded.
    """
    sizes = behavior.vocabulary_size, reference.vocabulary_size
    for name, size in zip(("behaviour", "reference"), sizes, strict=True):
        if size is not None and largest_id >= size:
            raise MisalignedError(
                f"Token id {largest_id} lies outside the {name}'s vocabulary of {size}.", hint=SAME_TOKENIZER
            )
    if not _differ(*sizes):
        return []
    tokenizers = behavior.manifest.tokenizer_sha256, reference.manifest.tokenizer_sha256
    if _differ(*tokenizers) and padding_mass != 0.0:
        raise MisalignedError(
            f"The vocabularies have {sizes[0]} and {sizes[1]} ids, and the tokenizers differ too: nothing says "
            "that an id means the same on both sides.",
            hint=SAME_TOKENIZER,
        )
    note = f"Ids that one side lacks are taken as padding: {sizes[0]} in the behaviour, {sizes[1]} in the reference"
    if padding_mass is None:
        return [f"{note}."]
    if padding_mass < NEGLIGIBLE_MASS:
        return [f"{note}. The padding was cut off; its mass is at most {padding_mass:.1g}."]
    return [f"{note}. The padding has a mass of up to {padding_mass:.2g}, which counts as leak."]


def note_evidence(behavior: EvidenceLevel, reference: EvidenceLevel, common: EvidenceLevel) -> list[str]:
    """A remark where one side recorded more than what both have in common."""
    if behavior == reference == common:
        return []
    return [f"The behaviour trace has {behavior} evidence, the reference {reference}; both have {common} alone."]


def _check_policies(behavior: Manifest, reference: Manifest) -> None:
    policies = behavior.policy, reference.policy
    if policies[0] == policies[1] or policies == ("processed", "support"):
        return
    mixed = set(policies) == {"raw", "processed"} and reference.temperature in (None, 1.0)
    if mixed and (_samples_raw(behavior) or (policies[1] == "processed" and _samples_raw(reference))):
        return
    raise NotComparableError(
        f"The behaviour trace holds the {policies[0]} policy, the reference the {policies[1]} one.",
        hint=f"score the {policies[0]} behaviour trace for the reference: a score takes the policy of its source",
    )


def check_roles(behavior: Manifest, reference: Manifest) -> None:
    """Raise `NotComparableError` where the trace given as the behaviour says that it is another policy's."""
    if behavior.role == "behavior":
        return
    order = "the first trace must be the one that sampled the tokens"
    if reference.role == "behavior":
        order = "the other way round: mismatchscope compare TRACE_MU TRACE_PI, the behaviour first"
    ours, theirs = (role.replace("behavior", "behaviour") for role in (behavior.role, reference.role))
    raise NotComparableError(
        f"The trace given as the behaviour says that it is the {ours}, the one given as the reference that it is "
        f"the {theirs}.",
        hint=order,
    )


def _sampling_notes(behavior: Manifest, reference: Manifest) -> list[str]:
    """Transforms of the sampler that one side's log-probs have and the other's do not, but for the temperature."""
    if behavior.policy != "processed" or reference.policy != "processed":
        return []
    sides = [None if side.sampling is None else asdict(side.sampling) for side in (behavior, reference)]
    apart = {
        key: values
        for key, values in sampling_differences(*sides).items()
        if key not in (*DRAWS, "temperature", "top_p", "top_k")
    }
    return [
        f"The log-probs have the sampler's {key} of {ours} in the behaviour and of {theirs} in the reference: that "
        "alone makes them differ."
        for key, (ours, theirs) in apart.items()
    ]


def _samples_raw(manifest: Manifest) -> bool:
    """Whether the sampler is known to leave the distribution as it is, so that raw and processed are one."""
    return manifest.sampling is not None and not manifest.sampling.transforms


def _differ(a: Any, b: Any) -> bool:
    return a is not None and b is not None and a != b
