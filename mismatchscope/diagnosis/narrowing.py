"""The causes that experiments leave, and which experiment is worth most next."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from .catalogue import ROUNDING, causes, experiments
from .decisions import RESCORE, RESCORED, decision, ruled_out_on_average
from .records import untold

_OF_THE_LOG = "log"
_NOT_CLOSED = 0.2
"""Of the weight of a cause whose candidates did not close the gap: it may be a kind that none of them is."""
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


def ranked_experiments(weights: Mapping[str, float], names: Sequence[str]) -> list[str]:
    """Those of them that can rule out any of these causes, what rules out most of their weight for its cost
    first."""
    worth = {name: ruled_out_on_average(name, weights) / experiments()[name].cost for name in names}
    return sorted((name for name in names if worth[name]), key=lambda name: -worth[name])


def weights_of(remaining: Iterable[str], tried: Container[str] = ()) -> dict[str, float]:
    """How likely each cause is where the data do not tell: 1 more than the cases in which it was there and nothing
    was named. Once candidates were scored, those that they stand for have left the gap as it was."""
    counts, scored = untold(), RESCORE in tried
    return {
        cause: (1 + counts.get(cause, 0)) * (_NOT_CLOSED if scored and cause in RESCORED else 1.0)
        for cause in remaining
    }


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
    _run: set[str] = field(default_factory=set)

    def following(self) -> str | None:
        """The experiment to run next, which is no longer open; None where none is worth it.

        One cause is put to an experiment that could have ruled it out, and is left where that has not.
        """
        weights = weights_of(self.remaining, self._run)
        if len(weights) < 2 and any(ruled_out_on_average(name, weights) for name, _ in self.told):
            return None
        ranked = ranked_experiments(weights, self.open_names)
        if not ranked:
            return None
        return self._begun(ranked[0])

    def proving(self) -> str | None:
        """What could prove a cause that is left, where nothing more is worth ruling out: its candidate."""
        if RESCORE not in self.open_names or not RESCORED & set(self.remaining):
            return None
        return self._begun(RESCORE)

    def _begun(self, name: str) -> str:
        self.open_names.remove(name)
        self._run.add(name)
        return name

    def tell(self, experiment: str, result: str) -> None:
        """What an experiment has found."""
        self.told.append((experiment, result))
        left = decision(experiment, result).over(self.remaining)
        if not left and not self.withdrawn:
            self.withdrawn, left = True, list(self.every)
            for told in self.told:
                left = decision(*told).over(left)
        self.remaining = left
