"""Records what TRL's `GRPOTrainer` trains on.

    from mismatchscope.integrations import trl

    trainer = GRPOTrainer(…)
    trl.attach(trainer, ms.Recorder("logs/run-7"))
    trainer.train()

TRL holds μ as `sampling_per_token_logps`, of vLLM or of a `rollout_func`; value [t] is of completion token t. Each
completion is recorded once, at the first training forward that sees it. That forward is π_θ where TRL took
`old_per_token_logps` before it; where it did not, because no update lies between, it is π_old itself.

Shapes: B completions, T tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import UsageError
from ..logs.recorder import Recorder
from .signatures import required

WRITTEN_AGAINST = "TRL 1.16"

_ROW, _REWARD, _VERSION = "mismatchscope_row", "mismatchscope_reward", "mismatchscope_version"
_LABELS = ("environment", "worker")
_NEEDED = {
    "_generate_and_score_completions": ("inputs",),
    "_compute_loss": ("model", "inputs"),
    "_get_per_token_logps_and_entropies": ("model", "input_ids", "logits_to_keep"),
    "_calculate_rewards": ("inputs", "prompts"),
}


def attach(trainer: Any, recorder: Recorder, *, log_metrics: bool = True) -> None:
    """Record every completion that a `GRPOTrainer` trains on from now on; evaluation is not recorded.

    The recorder's metrics of each batch go to the trainer's own log, averaged over a step as TRL averages its own,
    unless `log_metrics` is false. A `rollout_func` may return `policy_version`, `worker` and `environment`, a value
    a completion: TRL hands these on, and they are recorded.

    Raises:
        UsageError: this version of TRL does not have what the hook needs, or it holds no log-probs of the sampler.
    """
    originals = {
        name: required(trainer, name, parameters, "TRL", WRITTEN_AGAINST) for name, parameters in _NEEDED.items()
    }
    if not getattr(trainer, "use_vllm", True) and getattr(trainer, "rollout_func", None) is None:
        raise UsageError(
            "This trainer samples with the model itself, and TRL keeps no log-probs of that.",
            hint="use_vllm=True, or a rollout_func that returns logprobs",
        )
    hook = _Hook(trainer, recorder, log_metrics)
    trainer._generate_and_score_completions = hook.generation(originals["_generate_and_score_completions"])
    trainer._calculate_rewards = hook.rewards(originals["_calculate_rewards"])
    trainer._get_per_token_logps_and_entropies = hook.forward(originals["_get_per_token_logps_and_entropies"])
    trainer._compute_loss = hook.loss(originals["_compute_loss"])


class _Hook:
    """Wraps methods of one trainer. Its own additions to a batch travel with it as TRL shuffles and splits it."""

    def __init__(self, trainer: Any, recorder: Recorder, log_metrics: bool) -> None:
        self.trainer, self.recorder, self.log_metrics = trainer, recorder, log_metrics
        self.unseen: set[int] = set()
        self.labels: dict[str, list[Any]] = {}
        self.reward_BF: Any = None
        self.in_loss = False
        self.captured: tuple[Any, Any] | None = None
        self.generated_at = 0
        tokenizer = getattr(trainer.processing_class, "tokenizer", trainer.processing_class)
        self.padding = tokenizer.pad_token_id
        ends = trainer.model.generation_config.eos_token_id
        self.ends = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}

    def rewards(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def calculate_rewards(*arguments: Any, **options: Any) -> Any:
            self.reward_BF = original(*arguments, **options)
            return self.reward_BF

        return calculate_rewards

    def generation(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def generate_and_score_completions(inputs: Any) -> Any:
            output = original(inputs)
            if self.trainer.model.training:
                with self.recorder.guarded("A batch of TRL was not recorded"):
                    self._label(inputs, output)
            return output

        return generate_and_score_completions

    def forward(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def get_per_token_logps_and_entropies(*arguments: Any, **options: Any) -> Any:
            found = original(*arguments, **options)
            if self.in_loss and self.captured is None:
                self.captured = found[0], found[1]
            return found

        return get_per_token_logps_and_entropies

    def loss(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def compute_loss(model: Any, inputs: Any) -> Any:
            self.in_loss, self.captured = True, None
            try:
                loss = original(model, inputs)
            finally:
                self.in_loss = False
            if _ROW in inputs and self.trainer.model.training:
                with self.recorder.guarded("A batch of TRL was not recorded"):
                    self._record(inputs)
            self.captured = None
            return loss

        return compute_loss

    def _label(self, inputs: list[dict[str, Any]], output: dict[str, Any]) -> None:
        """Add to a batch the place of each completion in it, its reward and the version that sampled it."""
        completion_ids, trainer = output["completion_ids"], self.trainer
        count = len(completion_ids)
        rows = completion_ids.new_ones(count, device="cpu").cumsum(dim=0) - 1
        self.unseen, self.generated_at = set(range(count)), trainer.state.global_step
        self.labels = {name: [row.get(name) for row in inputs] for name in _LABELS if name in inputs[0]}
        versions = [row.get("policy_version") for row in inputs]
        if None in versions:  # TRL gives the sampler its latest weights before each generation
            versions = [self.generated_at] * count
        output[_ROW] = rows
        output[_VERSION] = rows.new_tensor(versions)
        if self.reward_BF is not None:
            first = trainer.accelerator.process_index * count  # TRL has gathered those of all processes
            weights = trainer.reward_weights.to(self.reward_BF.device)
            local_BF = self.reward_BF[first : first + count]
            reward_B = (local_BF * weights).nansum(dim=1)
            reward_B[local_BF.isnan().all(dim=1)] = float("nan")
            output[_REWARD] = reward_B

    def _record(self, inputs: dict[str, Any]) -> None:
        row_B = inputs[_ROW].tolist()
        new = [place for place, row in enumerate(row_B) if row in self.unseen]
        sampled = inputs.get("sampling_per_token_logps")
        if sampled is None or self.captured is None:
            raise ValueError(
                "TRL held no log-probs of the sampler: generate with vLLM or a rollout_func that returns logprobs"
                if sampled is None
                else "TRL's loss computed no log-probs"
            )
        if not new:
            return  # a later iteration over the same completions
        self.unseen -= {row_B[place] for place in new}
        forward_BT, entropy_BT = self.captured
        old_BT = inputs.get("old_per_token_logps")
        length_B, truncated_B = self._ends(inputs)
        step = self.trainer.state.global_step
        whole = len(new) == len(row_B)
        mask_BT = inputs["completion_mask"]
        batch = {
            "token_ids": inputs["completion_ids"],
            "mask": mask_BT * inputs["tool_mask"] if "tool_mask" in inputs else mask_BT,
            "lengths": length_B,
            "behavior_logprobs": sampled,
            "reference_logprobs": forward_BT if old_BT is None else old_BT,
            "target_logprobs": None if old_BT is None else forward_BT,
            "entropy": entropy_BT,
            "advantages": inputs["advantages"],
            "weights": inputs.get("importance_sampling_ratio"),
            "rewards": inputs.get(_REWARD),
            "truncated": truncated_B,
            "versions": inputs[_VERSION],
            "prompt_token_ids": inputs["prompt_ids"],
            "prompt_mask": inputs["prompt_mask"],
        }
        batch = {name: value if whole or value is None else value[new] for name, value in batch.items()}
        for name, values in self.labels.items():
            batch[name] = [values[row_B[place]] for place in new]
        trained = step if old_BT is None else self.generated_at
        metrics = self.recorder.log(step=step + 1, trainer_version=trained, **batch)
        if self.log_metrics:
            for name, value in metrics.items():
                self.trainer._metrics["train"][name].append(value)

    def _ends(self, inputs: dict[str, Any]) -> tuple[Any, Any]:
        """Each completion's length, and whether it was cut off: its last token is neither an end nor padding.

        Under `mask_truncated_completions` the mask of one that was cut off is 0 all over. Its last token is no
        padding, so that its length is where the padding begins.
        """
        ids, mask = inputs["completion_ids"], inputs["completion_mask"]
        padding = self.padding
        there = mask.bool() | ((mask.sum(dim=1, keepdim=True) == 0) & (ids != padding))
        length_B = (ids.new_ones(ids.shape).cumsum(dim=1) * there).amax(dim=1)
        last_B = ids.gather(1, (length_B - 1).clamp(min=0)[:, None]).squeeze(1)
        cut_B = last_B != padding
        for end in self.ends:
            cut_B = cut_B & (last_B != end)
        return length_B, cut_B
