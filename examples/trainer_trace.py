"""One step of RL on a miniature language model, and how far its sampler was from its trainer.

The sampler decodes with bfloat16 weights, the trainer scores in float32: the mismatch of every RL stack whose
rollouts come from an inference engine. Each side writes the log-probs that it saw as a trace, `compare` measures
the gap, and gates decide. Copy the calls of `ms` into your own loop: they take a batch as it is, padded and masked.

    python examples/trainer_trace.py
"""

import copy
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

import mismatchscope as ms

VOCABULARY, WIDTH, END = 64, 64, 0
PROMPTS, GROUP, LONGEST = 32, 4, 24


class TinyLM(nn.Module):
    """Token ids [B, L] -> logits [B, L, V], from the last token and the mean of all so far."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, VOCABULARY))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens)
        mean = x.cumsum(dim=1) / torch.arange(1, x.shape[1] + 1, dtype=x.dtype)[:, None]
        return 4 * self.layers(torch.cat([x, mean], dim=2))


@torch.no_grad()
def rollout(sampler: nn.Module, prompts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Responses, the log-probs they were drawn with, and a mask that is 1 up to the end token: [B, T] each."""
    tokens, logprobs = prompts, []
    for _ in range(LONGEST):
        logp = sampler(tokens)[:, -1].float().log_softmax(dim=-1)
        drawn = torch.multinomial(logp.exp(), 1)
        logprobs.append(logp.gather(1, drawn))
        tokens = torch.cat([tokens, drawn], dim=1)
    responses = tokens[:, prompts.shape[1] :]
    ended = (responses == END).cumsum(dim=1) - (responses == END).long()
    return responses, torch.cat(logprobs, dim=1), ended == 0


def score(trainer: nn.Module, prompts: torch.Tensor, responses: torch.Tensor) -> torch.Tensor:
    """The trainer's log-probs of the same tokens [B, T]: the logits at t - 1 score token t."""
    logits = trainer(torch.cat([prompts, responses], dim=1))[:, prompts.shape[1] - 1 : -1]
    return logits.log_softmax(dim=-1).gather(2, responses[..., None]).squeeze(2)


def main(directory: Path) -> int:
    torch.manual_seed(0)
    trainer = TinyLM()
    sampler = copy.deepcopy(trainer).to(torch.bfloat16)  # what an engine does with the weights that it is sent
    optimizer = torch.optim.AdamW(trainer.parameters(), lr=1e-3)

    prompts = torch.randint(1, VOCABULARY, (PROMPTS, 8)).repeat_interleave(GROUP, dim=0)
    responses, sampled, mask = rollout(sampler, prompts)
    old = score(trainer, prompts, responses)

    reward = (responses * mask % 2).sum(dim=1) / mask.sum(dim=1)  # odd tokens are good
    advantage = (reward.view(-1, GROUP) - reward.view(-1, GROUP).mean(dim=1, keepdim=True)).view(-1, 1)
    ratio = (old - old.detach()).exp()
    loss = -(ratio * advantage * mask).sum() / mask.sum()
    loss.backward()
    optimizer.step()
    new = score(trainer, prompts, responses)

    batch = {"prompts": prompts, "responses": responses, "mask": mask, "temperature": 1.0}
    mu = ms.write_trace(directory / "mu", role="behavior", logprobs=sampled, engine="bf16 sampler", **batch)
    pi = ms.write_trace(directory / "pi", role="reference", logprobs=old, engine="fp32 trainer", **batch)
    theta = ms.write_trace(directory / "theta", role="target", logprobs=new, engine="fp32 trainer", **batch)

    report = ms.compare(mu, pi, target=theta, fail_on=["token.k3.mean > 0.001", "sequence.ess_fraction < 0.9"])
    print(report.finding.sentence)
    print(f"α₁ ≥ {report.alpha1.observed_max:.4f}  sampler against trainer, before the step")
    print(f"α₀ ≥ {report.alpha0.observed_max:.4f}  trainer before against after the step")
    print(f"β  ≥ {report.beta.observed_max:.4f}  sampler against trainer, after the step")
    for gate in report.gates:
        print(f"{gate.verdict:<12} {gate.expression}  (found {gate.value:.3g})")
    (directory / "report.json").write_text(report.to_json(), encoding="utf-8")
    return 0 if report.verdict == "pass" else 1


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        sys.exit(main(Path(directory)))
