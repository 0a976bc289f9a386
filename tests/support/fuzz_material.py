"""Sound files of every kind that somebody can hand in, made once and as small as they come."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import fork_server
from forked_command import Run, run_all

BEHAVIOR = "synthetic:noise=0.003,vocabulary=24"
REFERENCE = "synthetic:noise=0.003,tv=0.05,vocabulary=24"
TINY = ["--limit", "3", "--samples", "1", "--max-new-tokens", "4", "--evidence"]
EVIDENCE = {"full": "full", "topk": "topk:4", "sampled": "sampled"}
PROMPTS = [
    {"prompt": "How far is it?"},
    {"prompt": "Übung macht den Meister"},
    {"prompt": "1 + 1 ="},
    {"prompt": "again"},
]
CONFIG = """\
# a comment
behavior = "synthetic:noise=0.003,vocabulary=24"
limit = 3
evidence = "full"
budget = "1GiB"
confidence = 0.95
margin = 0.5
repeats = false
tail = false

[reference]
engine = "synthetic"
noise = 0.003
tv = 0.05
vocabulary = 24

[sampling]
samples = 1
max_new_tokens = 4
temperature = 1.0
top_p = 1.0
seed = 7

[gate]
fail_on = ["token.tv.mean > 0.9", "alpha1.mean.high > 0.9"]
"""


class Workers:
    """Starts workers from a process that has imported their engine, in the forks that are given it as `before`."""

    def __init__(self, engine: str) -> None:
        import mismatchscope.processes  # noqa: F401 - whose supervisor runs in the interpreter of this process

        self._python = str(fork_server.interpreter(Path(sys.executable), engine))

    def __call__(self) -> None:
        sys.executable = self._python


class _Interrupted:
    """The workers, and an interrupt when the first trace is about to be packed."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    def __call__(self) -> None:
        from mismatchscope.collection import collector

        def finish(path: Path) -> None:
            raise KeyboardInterrupt

        self._workers()
        collector.finish = finish


def cache(root: Path) -> dict[str, str | None]:
    """Where the kernels of all runs are compiled once."""
    return {"XDG_CACHE_HOME": str(root / "cache")}


def audit(directory: str | Path, evidence: str = "full") -> list[str]:
    """The command that makes the traces and the report of `directory`."""
    sides = ["--behavior", BEHAVIOR, "--reference", REFERENCE]
    return ["audit", "-q", *sides, *TINY, EVIDENCE[evidence], "-o", str(directory)]


def make_material(root: Path, workers: Workers) -> None:
    """Finished audits of each kind of evidence (`root`/full …), an `unfinished` one, and the files of `inputs`."""
    runs = [
        Run(root / "logs" / name, audit(root / name, name), before=workers, environment=cache(root))
        for name in EVIDENCE
    ]
    stopped = audit(root / "unfinished")
    runs.append(Run(root / "logs" / "unfinished", stopped, before=_Interrupted(workers), environment=cache(root)))
    for run, ended in run_all(runs, seconds=180):
        assert ended.code == (130 if run.directory.name == "unfinished" else 0), ended.output
    [*(root / "unfinished").glob("*/parts/*.safetensors")][-1].unlink()
    (root / "full" / "before").mkdir()
    for file in (root / "full").glob("report*.json"):
        shutil.copy(file, root / "full" / "before")
    _make_inputs(root / "inputs")
    shutil.copy(root / "full" / "report.json", root / "inputs")


def _make_inputs(root: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    root.mkdir(parents=True)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in PROMPTS)
    chat = {"messages": [{"role": "user", "content": "Hello?"}], "tools": None}
    (root / "prompts.jsonl").write_text(lines)
    (root / "chats.jsonl").write_text("".join(json.dumps(chat) + "\n" for _ in range(3)))
    (root / "ids.jsonl").write_text("".join(json.dumps({"prompt_token_ids": [3, 1, n]}) + "\n" for n in range(3)))
    (root / "prompts.txt").write_text("".join(row["prompt"] + "\n" for row in PROMPTS))
    pq.write_table(pa.Table.from_pylist(PROMPTS), root / "prompts.parquet")
    pq.write_table(pa.Table.from_pylist([chat] * 3), root / "chats.parquet")
    (root / "run.toml").write_text(CONFIG)


def make_models(root: Path) -> None:
    """A tiny model and an adapter of it, in `root`/models. Needs torch."""
    from adapters import save_adapter
    from tiny_models import save_model, save_tokenizer

    save_model(root / "models" / "model")
    save_tokenizer(root / "models" / "model", chat_template="{{ messages[0].content }}")
    save_adapter(root / "models" / "model", root / "models" / "adapter")
