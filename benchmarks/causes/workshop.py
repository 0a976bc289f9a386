"""Where cases are made: for a model and a stack, draws that cases share, healthy floors, and strengths of plants.

Shapes: N tokens, S sequences, M tokens with whole distributions, K ids, V vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from architectures import load, prompts
from bench import Bench, Columns, excess
from cases import CONTROL, STACKS, TWO, Key, Part, Truth, columns_of, metadata, plants_of, put_all, target
from draws import Draws, Sampler, draw, uniforms
from kernels import FUSED, LEAN, SPLIT, STORED, Kernel, Precision
from native import NATIVE, native_logp
from plants import PLANTS, Plant
from policy import Policy, Run, Weights
from weights import update_of

from mismatchscope.diagnosis.evidence import Floor, FullRows, TokenEvidence, TopK

PRECISIONS: dict[str, tuple[Precision, Precision]] = {
    "bf16": ("bf16", "bf16"),
    "bf16, fp32 heads": ("bf16", "fp32"),
    "fp32": ("fp32", "fp32"),
}
POOL_PROMPTS, POOL_SAMPLES = 32, 3
SEQUENCES = 32
SAMPLER_SEQUENCES = 24
FLOOR_SEQUENCES = 24
CURVE_POINTS, CURVE_SEQUENCES = 4, 6
TOP = 64
FULL_ROWS = 160
NO_FLOOR_SHARE = 0.25
GROSS = 1e3


@dataclass(frozen=True)
class Case:
    key: Key
    evidence: TokenEvidence
    truth: Truth


@dataclass(frozen=True)
class Planted:
    """What a case is made of. `before` is the rms of z before the second of two faults."""

    bench: Bench
    columns: Columns
    before: float | None
    kernel: Kernel
    plants: list[Plant]
    strengths: list[float]
    rng: np.random.Generator


class Workshop:
    """Makes the cases of a part for one model and one stack."""

    def __init__(self, part: Part, model: str, stack: str, cache: Path) -> None:
        self.part, self.stack, self.cache = part, stack, cache
        language_model = load(model, cache)
        self.policy = Policy(language_model)
        self.policy.checkpoint_precision = PRECISIONS[stack][0]
        self.mu_run = _mu_run(stack)
        self.prompts = prompts(language_model, POOL_PROMPTS, part)
        self._curves: dict[str, list[tuple[float, float]]] = {}
        self._sound: dict[str, np.ndarray] = {}
        self.pool = self._pool(stack)

    @cached_property
    def update(self) -> Weights:
        """What training changes of the weights, for plants that have other ones."""
        return update_of(self.policy.model.name, self.part, self.cache)

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """Those that π may have; one of them is in the held-out part alone."""
        return (STORED, LEAN) if self.part == "development" else (STORED, LEAN, SPLIT)

    def make(self, keys: Sequence[Key]) -> Iterator[Case]:
        """The cases of these keys, which are of this part, model and stack."""
        for key in keys:
            if not _has_sampler(key):
                yield self._case(key, None)
        sampled = [key for key in keys if _has_sampler(key)]
        for first in range(0, len(sampled), 10):
            chunk = sampled[first : first + 10]
            for key, draws in zip(chunk, self._drawn(chunk), strict=True):
                yield self._case(key, draws)

    def planted(self, key: Key) -> Planted:
        """A case as it is made, with what it is made of: the same as `make` has."""
        (draws,) = self._drawn([key]) if _has_sampler(key) else (None,)
        return self._planted(key, draws)

    def _case(self, key: Key, draws: Draws | None) -> Case:
        made = self._planted(key, draws)
        bench, columns, plants = made.bench, made.columns, made.plants
        severity = excess(columns.mu_N, columns.pi_N) / self.floor(made.kernel)
        causes = tuple(plant.cause for plant in plants)
        if made.before is not None and made.before / self.floor(made.kernel) < 2:
            causes = causes[1:]
        if any(plant.name in ("numbers that are none", "probabilities") for plant in plants):
            severity = GROSS  # z is not defined where the fault is
        detail = {"kernel": made.kernel.name, "strengths": made.strengths, **bench.detail}
        truth = Truth(causes, severity, detail | {"plants": [plant.name for plant in plants]})
        return Case(key, self._evidence(bench, columns, made.kernel, made.rng), truth)

    def _planted(self, key: Key, draws: Draws | None) -> Planted:
        rng = np.random.default_rng(key.seed)
        wanted, plants = target(key, rng), plants_of(key, rng)
        kernels = self.kernels
        if key.plant == CONTROL and self.part == "held-out" and self.stack != "fp32":
            kernels = (*kernels, NATIVE)
        kernel = kernels[int(rng.integers(len(kernels)))]
        floor = self.floor(kernel)
        if key.plant == TWO:
            wanted = min(max(wanted, 4.0), 60.0)
        strengths = [self._strength(plant, wanted * floor) for plant in plants]
        if draws is None:
            chosen = self._chosen(rng)
            bench = self._bench(kernel, self.pool.select(chosen), rng)
            bench.sound_NV = self.sound(kernel)[self.pool.tokens_of(chosen)]
        else:
            bench = self._bench(kernel, draws, rng)
        put_all(bench, plants, strengths)
        columns, before = columns_of(bench, plants)
        return Planted(bench, columns, before, kernel, plants, strengths, rng)

    def _bench(self, kernel: Kernel, draws: Draws, rng: np.random.Generator) -> Bench:
        run = Run(kernel, self.mu_run.precision, self.mu_run.head)
        facts = metadata(len(draws.prompt_S), draws.prompt_S, rng)
        return Bench(self.policy, run, draws, lambda: self.update, rng, facts)

    def _chosen(self, rng: np.random.Generator) -> list[int]:
        """Responses of the pool: one, two or three of each prompt."""
        samples = int(rng.integers(1, POOL_SAMPLES + 1))
        chosen = rng.choice(POOL_PROMPTS, SEQUENCES // samples, replace=False)
        return [int(p) * POOL_SAMPLES + s for p in sorted(chosen) for s in range(samples)]

    def _pool(self, stack: str) -> Draws:
        """Draws that the cases share, made once."""
        file = self.cache / "draws" / f"{self.part}-{self.policy.model.name}-{stack}.npz"
        if not file.exists():
            many = [prompt for prompt in self.prompts for _ in range(POOL_SAMPLES)]
            numbers = [p for p in range(POOL_PROMPTS) for _ in range(POOL_SAMPLES)]
            seed = Key(self.part, self.policy.model.name, stack, "pool", 0).seed
            samplers = [Sampler()] * len(many)
            draw(self.policy, many, samplers, _mu_run(stack), uniforms(len(many), seed), numbers).save(file)
        return Draws.load(file)

    def _drawn(self, keys: Sequence[Key]) -> Iterator[Draws]:
        """Draws of cases whose fault is the sampler's, decoded together."""
        many, samplers, uniform = [], [], []
        for key in keys:
            rng = np.random.default_rng(key.seed)
            wanted, (plant,) = target(key, rng), plants_of(key, rng)
            strength = self._strength(plant, wanted * self.floor(STORED))
            assert plant.sampler is not None
            many += [self.prompts[p] for p in sorted(rng.choice(POOL_PROMPTS, SAMPLER_SEQUENCES, replace=False))]
            samplers += [plant.sampler(strength)] * SAMPLER_SEQUENCES
            uniform.append(uniforms(SAMPLER_SEQUENCES, key.seed))
        numbers = list(range(SAMPLER_SEQUENCES)) * len(keys)
        draws = draw(self.policy, many, samplers, self.mu_run, np.concatenate(uniform), numbers)
        for number in range(len(keys)):
            yield draws.select(range(number * SAMPLER_SEQUENCES, (number + 1) * SAMPLER_SEQUENCES))

    def sound(self, kernel: Kernel) -> np.ndarray:
        """[N, V]: π without a fault, over the pool."""
        if kernel.name not in self._sound:
            self._sound[kernel.name] = self._scored(kernel)
        return self._sound[kernel.name]

    def _scored(self, kernel: Kernel) -> np.ndarray:
        if kernel is NATIVE:
            return native_logp(self.policy.model.name, self.cache, self.pool.rows, self.mu_run.head)
        return self.policy.logp(self.pool.rows, self.mu_run.but(kernel=kernel)).numpy()

    def floor(self, kernel: Kernel, sequences: Iterable[int] | None = None) -> float:
        """rms z without a fault, over some responses of the pool or all."""
        tokens_N = self.pool.tokens_of(range(len(self.pool.prompt_S)) if sequences is None else sequences)
        token_N = self.pool.token_N[tokens_N]
        mu_N = self.pool.logp_NV[tokens_N, token_N].astype(np.float64)
        return excess(mu_N, self.sound(kernel)[tokens_N, token_N].astype(np.float64))

    def _strength(self, plant: Plant, wanted: float) -> float:
        """The strength at which a plant makes about this rms of z; 0 for one that has no strength."""
        if plant.strengths is None:
            return 0.0
        if plant.name not in self._curves:
            self._curves[plant.name] = self._curve(plant)
        strength_P, excess_P = np.log(np.array(self._curves[plant.name])).T
        if np.log(wanted) < excess_P[0]:
            # Below the range a gap is proportional to the strength, as any smooth change is.
            return float(np.exp(strength_P[0] + np.log(wanted) - excess_P[0]))
        return float(np.exp(np.interp(np.log(wanted), excess_P, strength_P)))

    def _curve(self, plant: Plant) -> list[tuple[float, float]]:
        """(strength, rms z) of a plant alone, without rounding, on a few responses, the same for every stack."""
        file = self.cache / "curves" / f"{self.part}-{self.policy.model.name}-{plant.name}.json"
        if file.exists():
            return [tuple(pair) for pair in json.loads(file.read_text())]
        assert plant.strengths is not None
        draws = self._pool(STACKS[0]).select(range(0, POOL_SAMPLES * CURVE_SEQUENCES, POOL_SAMPLES))
        kept = self.policy.checkpoint_precision
        self.policy.checkpoint_precision = "fp32"
        exact = Run(STORED, "fp32", "fp32")
        truth_NV = self.policy.logp(draws.rows, exact)
        points = []
        for strength in np.geomspace(*plant.strengths, CURVE_POINTS):
            if plant.sampler is not None:
                mu_NV = _sampled(truth_NV, draws, plant.sampler(float(strength)))
                bench = Bench(
                    self.policy, exact, Draws(draws.rows, mu_NV, draws.prompt_S), lambda: self.update, _rng()
                )
            else:
                shown = Draws(draws.rows, truth_NV.numpy(), draws.prompt_S)
                facts = {"step": np.array([0, 1, 2, 3, 1, 2]), "lag": np.array([0, 1, 2, 0, 1, 2])}
                facts |= {"worker": np.array(["a", "b", "c", "a", "b", "c"])}
                bench = Bench(self.policy, exact, shown, lambda: self.update, _rng(), facts)
            plant.put(bench, float(strength))
            columns = bench.finish()
            points.append((float(strength), max(excess(columns.mu_N, columns.pi_N), 1e-9)))
        self.policy.checkpoint_precision = kept
        rising = np.maximum.accumulate([value for _, value in points]) * (1 + 1e-6 * np.arange(CURVE_POINTS))
        points = [(strength, float(value)) for (strength, _), value in zip(points, rising, strict=True)]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(points))
        return points

    def _evidence(self, bench: Bench, columns: Columns, kernel: Kernel, rng: np.random.Generator) -> TokenEvidence:
        """Everything that can be seen of a case; less of it is seen at lower levels of evidence."""
        tokens = len(columns.mu_N)
        shown_M = np.sort(rng.choice(tokens, min(FULL_ROWS, tokens), replace=False))
        top_NK = np.argpartition(columns.mu_NV, -TOP, axis=1)[:, -TOP:]
        mu_NK = np.take_along_axis(columns.mu_NV, top_NK, 1)
        ids_NK = np.where(np.isfinite(mu_NK), top_NK, -1).astype(np.int32)
        pi_NK = np.where(ids_NK < 0, np.nan, np.take_along_axis(columns.pi_NV, top_NK, 1)).astype(np.float32)
        mu_NK = np.where(ids_NK < 0, np.nan, mu_NK)
        floor = None
        if self.stack == "fp32" or rng.random() > NO_FLOOR_SHARE:
            others = rng.choice(len(self.pool.prompt_S), FLOOR_SEQUENCES, replace=False)
            floor = Floor(self.floor(kernel, others), "third party")
        return TokenEvidence(
            logp_mu_N=columns.mu_N,
            logp_pi_N=columns.pi_N,
            sequence_N=columns.sequence_N,
            position_N=columns.position_N,
            prompt_S=bench.draws.prompt_S,
            token_N=columns.token_N,
            previous_N=columns.previous_N,
            prompt_length_S=np.array(bench.rows.start_S),
            metadata=bench.metadata,
            top=TopK(ids_NK, mu_NK, ids_NK, pi_NK),
            full=FullRows(shown_M, columns.mu_NV[shown_M], columns.pi_NV[shown_M]),
            floor=floor,
            head_VH=self.policy.head_weight.numpy(),
            in_order=True,
        )


def _mu_run(stack: str) -> Run:
    return Run(FUSED, *PRECISIONS[stack])


def _has_sampler(key: Key) -> bool:
    return key.plant in PLANTS and PLANTS[key.plant].sampler is not None


def _sampled(logp_NV: torch.Tensor, draws: Draws, sampler: Sampler) -> np.ndarray:
    """Log-probs after a sampler, at contexts that it did not draw. A token that it would not draw keeps its own."""
    from draws import processed

    seen_NV = torch.zeros(logp_NV.shape, dtype=torch.bool)
    row = 0
    for ids, start in zip(draws.rows.ids_S, draws.rows.start_S, strict=True):
        for place in range(start, len(ids)):
            seen_NV[row, torch.tensor(ids[:place])] = True
            row += 1
    settings = [torch.full((len(logp_NV),), getattr(sampler, name)) for name in Sampler.__dataclass_fields__]
    changed_NV = processed(logp_NV, seen_NV, settings)
    return torch.where(torch.isfinite(changed_NV), changed_NV, logp_NV).numpy()


def _rng() -> np.random.Generator:
    return np.random.default_rng(1)
