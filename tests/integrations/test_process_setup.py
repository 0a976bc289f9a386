"""Hooks that attach themselves in the processes that a trainer starts, as soon as its module is imported there."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pyarrow.dataset as ds
import pytest
from stand_ins import OPENRLHF, importable

import mismatchscope as ms
from mismatchscope.integrations import openrlhf, process_setup

ROOT = Path(__file__).resolve().parents[2]


def test_it_waits_for_the_import_and_acts_once(tmp_path: Path) -> None:
    calls: list[str] = []
    with importable(tmp_path, {"waited.first": "x = 1", "waited.second": "from waited import first"}):
        process_setup.when_imported("waited.first", lambda: calls.append("later"))
        importlib.import_module("waited")
        assert not calls
        assert importlib.import_module("waited.second").first.x == 1
        process_setup.when_imported("waited.first", lambda: calls.append("now"))
        importlib.reload(importlib.import_module("waited.first"))
    assert calls == ["later", "now"]


def test_a_hook_that_does_not_fit_stops_the_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(process_setup.DIRECTORY, str(tmp_path / "log"))
    with importable(tmp_path, {"openrlhf.trainer.ray.ppo_actor": "class Other: ..."}):
        openrlhf.setup()
        with pytest.raises(ms.errors.UsageError, match="ActorPPOTrainer, so nothing could be recorded"):
            importlib.import_module("openrlhf.trainer.ray.ppo_actor")


@pytest.mark.slow
def test_ray_attaches_it_in_every_actor(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    (tmp_path / "packages").mkdir()
    with importable(tmp_path / "packages", OPENRLHF):
        path = os.pathsep.join([str(tmp_path / "packages"), str(ROOT), str(ROOT / "tests" / "integrations")])
        path = os.pathsep.join([path, str(ROOT / "tests" / "support")])
        ray.init(
            num_cpus=1,
            include_dashboard=False,
            log_to_driver=False,
            runtime_env={
                "worker_process_setup_hook": "mismatchscope.integrations.openrlhf.setup",
                "env_vars": {process_setup.DIRECTORY: str(tmp_path / "log"), "PYTHONPATH": path},
            },
        )
        try:

            @ray.remote
            class Actor:
                def train(self) -> int:
                    from types import SimpleNamespace

                    from openrlhf.trainer.ray.ppo_actor import ActorPPOTrainer
                    from test_openrlhf import experience

                    os.environ["RANK"] = "3"
                    trainer = ActorPPOTrainer(SimpleNamespace(), [experience()], 1)
                    return len(trainer.ppo_train(0.1))

                def end(self) -> None:
                    ray.actor.exit_actor()

            actor = Actor.remote()
            assert ray.get(actor.train.remote()) == 1
            ray.wait([actor.end.remote()])
        finally:
            ray.shutdown()
    rows = ds.dataset(tmp_path / "log", format="parquet").to_table().to_pylist()
    assert [row["token_ids"] for row in rows] == [[11, 12, 13, 14], [21, 22]] and rows[0]["rank"] == 3
