"""What a training step holds of both policies, written as a log. Part of the public API: `mismatchscope.Recorder`.

Shapes: B responses, T tokens of one, E all entries of a packed batch.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..errors import MismatchScopeError, UsageError
from ..file_errors import file_errors

if TYPE_CHECKING:
    import pyarrow as pa

    from .recorded_rows import RecordedBatch
    from .shards import ShardWriter

_LOG = logging.getLogger(__name__)
_MOST_BYTES = 256 * 2**20  # of rows in memory: beyond it they are written, or, where that fails, lost

PerToken = Any  # [B, T], [E], or B rows of their own length: torch on any device, numpy or lists
PerResponse = Any  # one value for all responses, or one for each


class Recorder:
    """Writes the log-probs of a training run as Parquet files, which `mismatchscope analyze` reads.

    Any number of ranks may record into one directory, and a run that is started again goes on in it. A file is
    there as a whole or not at all. A process that is killed loses what was not yet written: at most the rows of the
    last `flush_seconds` and of the call that it was in.

    An error within `log` and `flush`, a full disk or an array of another shape, does not stop the training run: the
    first of each kind is a warning of the logger `mismatchscope`, all are counted in `errors`, and `strict` raises
    them instead. Rows that look padded, without a mask or lengths, are recorded and warned of once.

    Attributes:
        rows: responses that were taken in.
        errors: calls that failed.
        lost_rows: responses that were taken in and could not be written.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        trainer: str | None = None,
        rank: int | None = None,
        keep_prompts: bool = True,
        flush_rows: int = 8192,
        flush_seconds: float = 30.0,
        strict: bool = False,
    ) -> None:
        """Make the directory `path`, or add to one that is there.

        Args:
            trainer: what trains, for the report.
            rank: of this process; by default what the environment's RANK says.
            keep_prompts: write the prompts' token ids too. Without them prompts are told apart by a hash alone.
            flush_rows, flush_seconds: a file is written once so many rows are waiting, or at the first call of
                `log` so long after the last file. 0 seconds write one a call.
            strict: raise what goes wrong.

        Raises:
            UsageError: the directory cannot be made, or a value cannot be right. This one stops a run, since
                nothing of it would be recorded.
        """
        if flush_rows < 1 or flush_seconds < 0:
            raise UsageError("flush_rows is below 1 or flush_seconds below 0.", hint="leave them at their defaults")
        self.path = Path(path)
        self.strict = strict
        self.rows = self.errors = self.lost_rows = 0
        self._trainer, self._rank, self._keep_prompts = trainer, rank, keep_prompts
        self._flush_rows, self._flush_seconds = flush_rows, flush_seconds
        self._warned: set[str] = set()
        self._start_process()
        atexit.register(_close_if_alive, weakref.ref(self))

    def log(
        self,
        *,
        token_ids: PerToken,
        behavior_logprobs: PerToken,
        reference_logprobs: PerToken,
        mask: PerToken | None = None,
        target_logprobs: PerToken | None = None,
        step: PerResponse | None = None,
        versions: PerResponse | PerToken | None = None,
        trainer_version: PerResponse | None = None,
        worker: PerResponse | None = None,
        environment: PerResponse | None = None,
        rewards: PerResponse | None = None,
        truncated: PerResponse | None = None,
        advantages: PerResponse | PerToken | None = None,
        entropy: PerToken | None = None,
        weights: PerResponse | PerToken | None = None,
        turns: PerToken | None = None,
        prompts: PerResponse | None = None,
        prompt_token_ids: Any = None,
        prompt_mask: Any = None,
        kept_set: Any = None,
        kept_logmass: PerToken | None = None,
        experts: Any = None,
        lengths: PerResponse | None = None,
        cu_seqlens: Any = None,
        prompt_lengths: PerResponse | None = None,
    ) -> dict[str, float]:
        """Record a batch and return its metrics under stable names, `mismatchscope/token/kl_k3` and others.

        Arrays are torch tensors of any device and dtype, numpy arrays or lists. They are padded [B, T], packed end
        to end [E] with `lengths` or `cu_seqlens`, or one row a response. Value [t] is of token t. What is not given
        is recorded as unknown; the dictionary is empty where the batch could not be recorded.

        Args:
            token_ids: response tokens; with `prompt_lengths` prompt and response in one row.
            behavior_logprobs: natural log-probs of the policy that sampled, μ, as the engine reported them.
            reference_logprobs: of π_old, the trainer's own before the update.
            mask: 1 at tokens that the loss counts. Without `lengths` a response ends at its last 1.
            target_logprobs: of π_θ, in the update's own forward.
            step: the trainer's step.
            versions: of the weights that sampled, an integer a response or a token; −1 where none did.
            trainer_version: of the weights that `reference_logprobs` are of.
            worker, environment: names, of the engine that sampled and of the task.
            rewards: of each response.
            truncated: whether it ended because it was too long.
            advantages, entropy, weights, turns: of each token; weights are the correction's, as it was applied.
            prompts: what tells prompts apart, integers or texts. By default the prompts' tokens do.
            prompt_token_ids, prompt_mask: the prompts, in rows of their own length, or padded with a mask.
            kept_set: ids that the sampler kept at each token, [B][T][K]; ids of −1 fill an array up.
            kept_logmass: log of the mass that π_old gives to them.
            experts: chosen experts of each token, [B, T, layers, K].
            lengths, cu_seqlens: entries of each row, their running sums from 0.
            prompt_lengths: how many entries at the front of each row are the prompt.
        """
        given = locals() | {"policy_version": versions, "prompt": prompts, "reward": rewards, "kept_ids": kept_set}
        values = {name: value for name, value in given.items() if name not in _RENAMED}
        try:
            with self._lock_of_process():
                return self._take(values)
        except Exception as error:
            self._fail(error, "A batch was not recorded")
            return {}

    def flush(self) -> None:
        """Write what is waiting, and return when it is on the disk."""
        try:
            with self._lock_of_process():
                self._write()
        except Exception as error:
            self._fail(error, "Recorded rows could not be written")

    @contextmanager
    def guarded(self, what: str) -> Iterator[None]:
        """For a hook's own code: an error within it is treated as one of `log`. `what` begins the warning."""
        try:
            yield
        except Exception as error:
            self._fail(error, what)

    def close(self) -> None:
        """Write what is waiting; at the end of the process this is called by itself."""
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, values: dict[str, Any]) -> dict[str, float]:
        from .recorded_rows import padding_of, recorded_batch

        batch = recorded_batch(values, keep_prompts=self._keep_prompts)
        if all(values[name] is None for name in ("mask", "lengths", "cu_seqlens")) and (
            padding := padding_of(batch)
        ):
            self._warn(
                "padding",
                f"{padding:,} of {batch.length_B.sum():,} recorded tokens are one id over and over at the ends of "
                "responses, with log-prob 0 on both sides: padding looks like this, and counts as agreement. Next: "
                "give mask=, lengths= or cu_seqlens=.",
            )
        rows = batch.rows(self.rows, self._rank_now())
        metrics = _metrics(batch)
        if self._waiting and self._waiting[0].schema != rows.schema:
            self._write()  # one schema a file
        self._waiting.append(rows)
        self._waiting_rows += rows.num_rows
        self._waiting_bytes += rows.nbytes
        self.rows += rows.num_rows
        late = time.monotonic() - self._written_at >= self._flush_seconds
        if late or self._waiting_rows >= self._flush_rows or self._waiting_bytes > _MOST_BYTES:
            self._write()
        return metrics

    def _write(self) -> None:
        """A file of all rows that wait; where that fails they wait on, unless they are too many."""
        while self._waiting:
            schema = self._waiting[0].schema
            batches = [rows for rows in self._waiting if rows.schema == schema]
            self._written_at = time.monotonic()  # a disk that is full is not tried again at every call
            try:
                with file_errors("Recorded rows cannot be written", hint="make room; the recorder tries again"):
                    self._writer.write(batches, self._rank_now())
            except Exception:
                if self._waiting_bytes > _MOST_BYTES:
                    self.lost_rows += self._waiting_rows
                    self._set_waiting([])
                raise
            self._set_waiting([rows for rows in self._waiting if rows.schema != schema])

    def _set_waiting(self, waiting: list[pa.RecordBatch]) -> None:
        self._waiting = waiting
        self._waiting_rows = sum(rows.num_rows for rows in waiting)
        self._waiting_bytes = sum(rows.nbytes for rows in waiting)

    def _fail(self, error: Exception, what: str) -> None:
        if self.strict:
            raise error
        self.errors += 1
        said = f"{type(error).__name__}: {error}."
        foreign: Exception | None = error
        if isinstance(error, MismatchScopeError):
            said, foreign = error.message + (f" Next: {error.hint}." if error.hint else ""), None
        end = "Training goes on; the recorder counts such errors and warns once."
        self._warn(type(error).__name__, f"{what}: {said} {end}", foreign)

    def _warn(self, kind: str, message: str, error: Exception | None = None) -> None:
        """Once of each kind."""
        if kind not in self._warned:
            self._warned.add(kind)
            _LOG.warning("%s", message, exc_info=error)

    def _start_process(self) -> None:
        from .shards import ShardWriter

        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._written_at = time.monotonic()
        self._set_waiting([])
        with file_errors("The recorder's directory cannot be made", hint="choose another path", kind=UsageError):
            self._writer: ShardWriter = ShardWriter(self.path, self._trainer)

    def _rank_now(self) -> int | None:
        """The rank; a launcher may set it only after the recorder was made."""
        text = os.environ.get("RANK", "")
        return int(text) if self._rank is None and text.isdigit() else self._rank

    def _lock_of_process(self) -> threading.RLock:
        """The lock; a forked process first gets files of its own, and leaves its parent's rows to its parent."""
        if self._pid != os.getpid():
            self._start_process()
        return self._lock


def _close_if_alive(reference: weakref.ref[Recorder]) -> None:
    recorder = reference()
    if recorder is not None:
        recorder.close()


_RENAMED = ("self", "versions", "prompts", "rewards", "kept_set")


def _metrics(batch: RecordedBatch) -> dict[str, float]:
    import numpy as np

    from .recorder_metrics import batch_metrics

    by_token, length_B = batch.by_token, batch.length_B
    trained = batch.by_row.get("trainer_version")
    lag_R = None
    if trained is not None and "versions" in by_token:
        version_R = np.where(by_token["versions"] < 0, np.nan, by_token["versions"])
        lag_R = np.repeat(np.array(trained, dtype=np.float64), length_B) - version_R
    elif trained is not None and "policy_version" in batch.by_row:
        sampled_B = np.array(batch.by_row["policy_version"], dtype=np.float64)
        lag_B = np.array(trained, dtype=np.float64) - np.where(sampled_B < 0, np.nan, sampled_B)
        lag_R = np.repeat(lag_B, length_B)
    return batch_metrics(
        length_B,
        by_token.get("mask"),
        by_token["behavior_logprobs"],
        by_token["reference_logprobs"],
        by_token.get("target_logprobs"),
        lag_R,
    )
