"""FSDP2 with mixed precision: a model sharded over several processes, which run every forward together.

Each rank keeps a part of every float32 weight; a layer is gathered, and cast to the dtype of the forward, when its
turn comes. Rank 0 is the engine's own process: it tells the others, its children, what to run next. All of them run
the same batch, and what they compute is compared bit by bit.

Shapes: B rows, T columns, N states, H hidden, V vocabulary.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from torch import Tensor, nn

from ...errors import EngineError, SpecError
from .causal_lm import CausalLM
from .loading import DTYPES, choose_device, choose_threads, set_matmul_precision

if TYPE_CHECKING:
    from transformers import Cache

    from ..common.adapter import Adapter
    from .options import TransformersOptions

_HOST = "127.0.0.1"
_TIMEOUT = timedelta(minutes=10)
_WAIT_SECONDS = 0.1

_END, _HIDDEN, _LOGITS = range(3)
"""What rank 0 has the others do next."""


class ShardedLM(CausalLM):
    """A `CausalLM` whose parameters are spread over `options.fsdp` processes, for prefill alone."""

    _sharded = False

    def __init__(self, path: Path, adapter: Adapter | None, options: TransformersOptions) -> None:
        device = choose_device(options.device)
        if device.type == "cuda" and torch.cuda.device_count() < options.fsdp:
            raise SpecError(
                f"transformers: fsdp={options.fsdp} needs as many GPUs, torch sees {torch.cuda.device_count()}.",
                hint="device=cpu",
            )
        self._options, self._ranks = options, options.fsdp
        store = dist.TCPStore(_HOST, 0, is_master=True, wait_for_workers=False)
        self._others = processes.start_processes(
            _follow,
            (path, adapter, options, device.type, store.port),
            nprocs=self._ranks - 1,
            join=False,
            daemon=True,
            start_method="spawn",
        )
        super().__init__(path, adapter, replace(options, device=_device_of(device.type, rank=0)))
        while not all(store.check([f"loaded {rank}"]) for rank in range(1, self._ranks)):
            self._raise_failure(_WAIT_SECONDS)
        with self._failures():
            self._shard(options, 0, store)

    def hidden(
        self, input_ids_BT: Tensor, mask_BT: Tensor | None, position_ids_BT: Tensor, cache: Cache | None = None
    ) -> Tensor:
        if not self._sharded:
            return super().hidden(input_ids_BT, mask_BT, position_ids_BT, cache)
        assert cache is None, "what is sharded does not decode"
        with self._failures():
            self._tell(_HIDDEN, *input_ids_BT.shape, mask_BT is not None)
            for tensor in (input_ids_BT, position_ids_BT, *(() if mask_BT is None else (mask_BT,))):
                dist.broadcast(tensor.contiguous(), 0)
            return self._agreed(super().hidden(input_ids_BT, mask_BT, position_ids_BT))

    def logits(self, hidden_NH: Tensor) -> Tensor:
        if not self._sharded:
            return super().logits(hidden_NH)
        # What is gathered in inference mode is of no use outside.
        with self._failures(), torch.inference_mode(False), torch.no_grad():
            self._tell(_LOGITS, *hidden_NH.shape)
            dist.broadcast(hidden_NH.float(), 0)
            return self._agreed(super().logits(hidden_NH))

    @property
    def dtype(self) -> str:
        return self._options.dtype  # parameters are cast when they are gathered

    @property
    def head_dtype(self) -> torch.dtype:
        if self._float32_head or self.autocast:
            return super().head_dtype
        return DTYPES[self._options.dtype]

    @property
    def router_dtype(self) -> str | None:
        whole = self._float32_router or self.autocast or not self.routers
        return super().router_dtype if whole else self._options.dtype

    def close(self) -> None:
        self._tell(_END)
        dist.destroy_process_group()
        while not self._others.join():
            pass

    def _tell(self, call: int, *numbers: int) -> None:
        dist.broadcast(torch.tensor([call, *numbers, *[0] * (3 - len(numbers))], device=self.device), 0)

    def _agreed(self, result: Tensor) -> Tensor:
        """The result, which every rank has. Raises `EngineError` where one has other bits."""
        sums = _checksums(result, self._ranks)
        other = next((rank for rank, checksum in enumerate(sums) if checksum != sums[0]), None)
        if other is not None:
            raise EngineError(f"rank {other} of FSDP2's {self._ranks} computed other numbers than rank 0")
        return result

    def _shard(self, options: TransformersOptions, rank: int, store: dist.Store) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        backend = "gloo"
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            backend = "nccl"
        dist.init_process_group(backend, store=store, rank=rank, world_size=options.fsdp, timeout=_TIMEOUT)
        mesh = init_device_mesh(self.device.type, (options.fsdp,))
        forward = None if options.dtype == "autocast" else DTYPES[options.dtype]
        if self._head.weight is self.network.get_input_embeddings().weight:
            self._head.weight = nn.Parameter(
                self._head.weight.detach().clone()
            )  # two parts that are gathered apart
        if options.router == "float32":
            for router in self.routers:
                fully_shard(router, mesh=mesh)
        policy = MixedPrecisionPolicy(param_dtype=forward, reduce_dtype=torch.float32)
        layers = set(self.network._no_split_modules or ())
        parts = [module for module in self._backbone.modules() if type(module).__name__ in layers]
        for module in (*parts, self._backbone, self._head):
            fully_shard(module, mesh=mesh, mp_policy=policy)
        self._sharded = True

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Where ranks cannot go on together, say which of them failed, and why."""
        try:
            yield
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError):
                self._raise_failure(_WAIT_SECONDS * 50)
            raise

    def _raise_failure(self, wait: float) -> None:
        """Raise `EngineError` for a rank that has ended; wait so long for one."""
        try:
            self._others.join(timeout=wait)
        except processes.ProcessRaisedException as error:
            reason = str(error).strip().splitlines()[-1]
            raise EngineError(f"rank {error.error_index + 1} of FSDP2's {self._ranks} failed: {reason}") from error
        except processes.ProcessExitedException as error:
            how = f"was killed by {error.signal_name}" if error.signal_name else f"ended with {error.exit_code}"
            raise EngineError(f"rank {error.error_index + 1} of FSDP2's {self._ranks} {how}") from error


class _Follower(ShardedLM):
    """The part of a rank other than 0. What its model computes is not told to anyone."""

    def __init__(self, path: Path, adapter: Adapter | None, options: TransformersOptions) -> None:
        CausalLM.__init__(self, path, adapter, options)

    def run(self) -> None:
        """Do what rank 0 says, until it says that this is the end."""
        dtype = torch.float32
        while True:
            call, rows, columns, masked = self._receive(torch.int64, 4).tolist()
            if call == _END:
                return
            if call == _HIDDEN:
                ids, positions, *mask = (self._receive(torch.int64, rows, columns) for _ in range(2 + masked))
                with torch.set_grad_enabled(self.train_mode), self.training():
                    result = CausalLM.hidden(self, ids, mask[0] if masked else None, positions).detach()
                dtype = result.dtype
            else:
                with torch.no_grad():
                    result = CausalLM.logits(self, self._receive(torch.float32, rows, columns).to(dtype))
            _checksums(result, dist.get_world_size())

    def _receive(self, dtype: torch.dtype, *shape: int) -> Tensor:
        tensor = torch.empty(shape, dtype=dtype, device=self.device)
        dist.broadcast(tensor, 0)
        return tensor


def _follow(
    index: int, path: Path, adapter: Adapter | None, options: TransformersOptions, device: str, port: int
) -> None:
    """A process of another rank than 0, from its start to its end."""
    rank = index + 1
    store = dist.TCPStore(_HOST, port, is_master=False)
    set_matmul_precision(options)
    lm = _Follower(path, adapter, replace(options, device=_device_of(device, rank)))
    choose_threads(options, lm.parameters)
    store.set(f"loaded {rank}", "")
    lm._shard(options, rank, store)
    lm.run()
    dist.destroy_process_group()


def _device_of(kind: str, rank: int) -> str:
    return f"cuda:{rank}" if kind == "cuda" else kind


def _checksums(result: Tensor, ranks: int) -> list[int]:
    """Of the bits of each rank's result, sums in which every place has a weight of its own."""
    integers = {2: torch.int16, 4: torch.int32}[result.element_size()]
    bits = result.detach().contiguous().view(integers).flatten().long()
    weights = torch.arange(1, 2 * len(bits), 2, device=bits.device)
    own = (bits * weights).sum().reshape(1)
    sums = [torch.empty_like(own) for _ in range(ranks)]
    dist.all_gather(sums, own)
    return [int(checksum) for checksum in sums]
