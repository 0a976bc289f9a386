"""The causes that experiments leave, and which experiment is worth most next."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field

from .catalogue import ROUNDING, causes, experiments
from .decisions import RESCORE, RESCORED, decision, excluded_on_average

_OF_THE_LOG = "log"
_OF_A_RUN = frozenset({"staleness", "worker", "weights_changed_in_response"})
"""What takes a run with several workers or versions of the weights: two engines have none of it."""
OF_EXPERTS = frozenset({"routing", "routing_replay", "expert"})
OF_RECURRENT_LAYERS = frozenset({"recurrent_state"})
OF_SEVERAL_DEVICES = frozenset({"reductions"})
"""What takes a mixture of experts, layers that keep a state, or sums over devices."""


def is_of_the_log(cause: str) -> bool:
    """Whether only the writer of a log can do it, no engine."""
    return cause != ROUNDING and causes()[cause].experiment == _OF_THE_LOG


def every_cause(impossible: Set[str] = frozenset()) -> list[str]:
    """What two engines can do wrong, and ordinary rounding, without what is `impossible` for this model."""
    left_out = _OF_A_RUN | impossible
    return [*(code for code in causes() if code not in left_out and not is_of_the_log(code)), ROUNDING]


def ranked_experiments(remaining: Sequence[str], names: Sequence[str]) -> list[str]:
    """Those of them that can rule out any of these causes, what rules out most for its cost first."""
    worth = {name: excluded_on_average(name, remaining) / experiments()[name].cost for name in names}
    return sorted((name for name in names if worth[name]), key=lambda name: -worth[name])


@dataclass
class Narrowing:
    """Experiments until one cause is left, or nothing that can be run tells the rest apart.

    `remaining` are the causes that are left, likeliest first; `open_names` the experiments that were not run yet,
    `told` the others with their results. A result against everything that was suspected withdraws it: whatever the
    results leave of `every` cause is possible then.
    """

    remaining: list[str]
    open_names: list[str]
    every: Sequence[str]
    told: list[tuple[str, str]] = field(default_factory=list)
    withdrawn: bool = False

    def following(self) -> str | None:
        """The experiment to run next, which is no longer open; None where none is worth it.

        One cause is put to an experiment that could have ruled it out, and is left where that has not.
        """
        if len(self.remaining) < 2 and any(excluded_on_average(name, self.remaining) for name, _ in self.told):
            return None
        ranked = ranked_experiments(self.remaining, self.open_names)
        if not ranked:
            return None
        self.open_names.remove(ranked[0])
        return ranked[0]

    def proving(self) -> str | None:
        """What could prove a cause that is left, where nothing more is worth ruling out: its candidate."""
        if RESCORE not in self.open_names or not RESCORED & set(self.remaining):
            return None
        self.open_names.remove(RESCORE)
        return RESCORE

    def tell(self, experiment: str, result: str) -> None:
        """What an experiment has found."""
        self.told.append((experiment, result))
        left = decision(experiment, result).over(self.remaining)
        if not left and not self.withdrawn:
            self.withdrawn, left = True, list(self.every)
            for told in self.told:
                left = decision(*told).over(left)
        self.remaining = left
