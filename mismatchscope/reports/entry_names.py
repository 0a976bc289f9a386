"""Names of the entries of a report's lists: `alpha1.tolerance.p95`, `corrections.icepop`, never an index.

An entry is named by what tells it apart from the others. A rule at several thresholds has its usual name where it
stands first, and all its settings in the name of each: `sequence_tis`, `sequence_tis_cap_10`. What a log calls a
worker or an environment is foreign: its letters and digits, of any script, make the name, and anything else is an
underscore. Where two labels become one name, each goes by a longer one with a hash of the label.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from ..errors import ConfigError
from ..measures.log_results import GroupKind
from .pair_fields import engine_of

_NUMBER = r"[0-9]+(?:_[0-9]+)?(?:e-?[0-9]+)?"


@dataclass(frozen=True)
class EntryNames:
    """How the entries of one list are told apart.

    `fields` are the attributes that do so; they are settings, not figures. `name` makes the usual name of an entry
    and what longer names add to it. Of two entries with one usual name, it means the first where reports have
    entries in an order of their own (`ordered`), and else neither. `form` is a pattern of every name, `usual` the
    names in the order in which reports have them, `ends` two more names, of the first and the last entry.
    """

    fields: tuple[str, ...]
    name: Callable[[Any], tuple[str, ...]]
    form: str
    usual: tuple[str, ...]
    ends: tuple[str, ...] = ()
    ordered: bool = True

    def find(self, entries: Sequence[Any], name: str) -> Any | None:
        """The entry of that name, or None. Raises `ConfigError` where two have it."""
        if entries and name in self.ends:
            return entries[0 if name == self.ends[0] else -1]
        exact = [entry for entry in entries if name == self.full_name(entry)]
        found = exact or [entry for entry in entries if name in self._names(entry)]
        if len(exact) > 1 or (not self.ordered and len(found) > 1):
            raise ConfigError(
                f"'{name}' is ambiguous: the report has {len(found)} entries of that name.",
                hint=f"the entries are {', '.join(self.names(entries))}",
            )
        return next(iter(found), None)

    def generic(self, name: str) -> str:
        """The first usual name for every name that an entry can have; anything else as it is."""
        return self.usual[0] if re.fullmatch(self.form, name) else name

    def named_by_index(self, key: str) -> str:
        """The usual name at a list index, the last one beyond the end; anything else as it is."""
        return self.usual[min(int(key), len(self.usual) - 1)] if re.fullmatch(r"[0-9]{1,6}", key) else key

    def names(self, entries: Sequence[Any]) -> list[str]:
        """One name an entry: the shortest that means this entry, else the full one."""
        found: list[str] = []
        times = Counter(name for entry in entries for name in set(self._names(entry)))
        for entry in entries:
            free = (
                name for name in self._names(entry) if (name not in found if self.ordered else times[name] == 1)
            )
            found.append(next(free, self.full_name(entry)))
        return found

    def full_name(self, entry: Any) -> str:
        """`sequence_tis_cap_10`: the usual name and all else that tells the entry apart."""
        return self._names(entry)[-1]

    def _names(self, entry: Any) -> list[str]:
        """From the usual name to the full one."""
        parts = self.name(entry)
        return ["_".join(filter(None, parts[: length + 1])) for length in range(len(parts))]


def _labelled(usual: str, *fields: str) -> EntryNames:
    """Entries that texts tell apart, `usual` standing for any of their names."""

    def name(entry: Any) -> tuple[str, str]:
        labels = [unicodedata.normalize("NFC", getattr(entry, field)) for field in fields]
        safe = [safe_name(label) for label in labels]
        changed = hashlib.blake2b("\0".join(labels).encode(), digest_size=3).hexdigest() if safe != labels else ""
        return "_".join(safe), changed

    return EntryNames(fields=fields, name=name, form=_LABEL, usual=(usual,), ordered=False)


def safe_name(label: str) -> str:
    """A label as part of a path: `worker-3`, `math_v2` for "math/v2"."""
    return re.sub(r"[^\w-]+", "_", label) or "_"


def _settings(values: Mapping[str, float]) -> str:
    """`cap_10`: settings as part of a name."""
    return "_".join(f"{key}_{_number(value)}" for key, value in values.items())


def _number(value: float) -> str:
    """A setting as part of a name: `0_05`, `10`, `1e-6`."""
    return re.sub(r"e\+?(-?)0*", r"e\1", f"{value:.6g}").replace(".", "_")


def _percentile(quantile: float) -> str:
    """`p50`, `p95`, `p999`, as in `token.tv.p999`."""
    return f"p{f'{quantile:.6g}'.partition('.')[2]:0<2}"


_RULES = (
    "token_tis",
    "icepop",
    "sequence_tis",
    "sequence_tis_cap_10",
    "sequence_mis",
    "sequence_mis_cap_3",
    "geometric_mask",
    "k3_rejection",
    "k3_rejection_threshold_0_01",
    "worst_token_rejection",
    "worst_token_rejection_low_1e-5",
    "trust_region_mask_max",
    "trust_region_mask_mean",
    "largest_k3_rejection",
    "error_rejection",
    "mean_ratio_mask",
    "one_sided_sequence_mask",
    "dppo_tv_mask",
    "dppo_kl_mask",
    "ipo_mask",
    "one_sided_reference_kl",
    "ppo_clip",
    "gspo_clip",
    "cispo",
    "decoupled_ppo",
    "m2po",
)
_TRAINERS = "verl|trl|nemo_rl|openrlhf|skyrl|slime|miles|prime_rl|areal|torchtitan"
_KINDS = get_args(GroupKind)
_LABEL = r"[\w-]+"
_QUANTILES = ("p50", "p90", "p95", "p99", "p999")
_TAUS = tuple(f"tau_{_number(float(f'{step}e{exponent}'))}" for exponent in range(-6, 0) for step in (1, 2, 5))

ENTRY_NAMES = {
    "tolerance": EntryNames(
        fields=("quantile", "confidence"),
        name=lambda entry: (_percentile(entry.quantile), _settings({"confidence": entry.confidence})),
        form=rf"(?:{'|'.join(_QUANTILES)})(?:_confidence_{_NUMBER})?",
        usual=_QUANTILES,
    ),
    "exceedance": EntryNames(
        fields=("tau",),
        name=lambda entry: (f"tau_{_number(entry.tau)}", ""),
        form="|".join(_TAUS),
        usual=_TAUS,
    ),
    "by_length": EntryNames(
        fields=("low", "high"),
        name=lambda entry: (f"tokens_{entry.low}_to_{entry.high}", ""),
        form="shortest|longest|tokens_[0-9]+_to_[0-9]+",
        usual=("shortest", "longest"),
        ends=("shortest", "longest"),
    ),
    "corrections": EntryNames(
        fields=("name", "parameters"),
        name=lambda entry: (re.sub(r"\W+", "_", entry.name).lower(), _settings(entry.parameters)),
        form=rf"(?:{'|'.join(_RULES)})(?:_[A-Za-z]+_{_NUMBER})*|(?:{_TRAINERS})_[a-z0-9_]+",
        usual=_RULES,
    ),
    "groups": EntryNames(fields=("by",), name=lambda entry: (entry.by, ""), form="|".join(_KINDS), usual=_KINDS),
    "rows": _labelled("LABEL", "label"),
    "distribution": _labelled("CODE", "code"),
    "correction_audit": _labelled("COLUMN_CODE", "column", "code"),
    "native_metrics": _labelled("TRAINER_NAME", "trainer", "name"),
    "cells": EntryNames(
        fields=("setting", "against", "engine", "path", "side"),
        name=lambda cell: (
            safe_name(cell.setting),
            safe_name(f"{engine_of(cell.engine)}_{cell.path}"),
            safe_name(f"against_{cell.against}"),
            cell.side or "",
        ),
        form=_LABEL,
        usual=("SETTING",),
        ordered=False,
    ),
    "effects": _labelled("CHANGE", "change"),
    "interactions": _labelled("CHANGE_and_CHANGE", "changes"),
    "lengths": EntryNames(
        fields=("tokens",),
        name=lambda row: (f"tokens_{row.tokens}", ""),
        form="tokens_[0-9]+",
        usual=tuple(f"tokens_{2**power}" for power in range(2, 17)),
    ),
    "transforms": EntryNames(
        fields=("change", "tried"),
        name=lambda step: (safe_name(step.change.replace(".", "_")), "tried" if step.tried else ""),
        form=_LABEL,
        usual=("CHANGE",),
    ),
    "layers": EntryNames(
        fields=("layer",),
        name=lambda row: (f"layer_{row.layer}", ""),
        form="layer_[0-9]+",
        usual=tuple(f"layer_{number}" for number in range(128)),
    ),
    "stages": EntryNames(
        fields=("stage",),
        name=lambda each: (safe_name(each.stage.replace(".", "_")), ""),
        form=_LABEL,
        usual=("STAGE",),
    ),
    "unmatched": _labelled("STAGE", "stage"),
    "differences": _labelled("CELL", "than"),
    "completions": EntryNames(
        fields=("engine",),
        name=lambda each: (safe_name(engine_of(each.engine)), ""),
        form=_LABEL,
        usual=("ENGINE",),
        ordered=False,
    ),
}
"""By the name of the list."""
