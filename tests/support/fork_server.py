"""Start engines without importing them anew: a server that has imported an engine's package forks a worker a job.

To import vLLM or SGLang takes ten times what a tiny model takes to load, and SGLang imports itself in three
processes. `interpreter` makes a server and gives the path of what the launcher can call in an interpreter's place:

    INTERPRETER -m MODULE ARGUMENTS…

It hands its standard streams, environment and arguments to the server, which forks a process that runs MODULE with
them, and ends as that process ends. Whichever is killed, the other goes too, and so does what the process started.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import multiprocessing
import os
import random
import resource
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path

PREPARED = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "SGLANG_USE_CPU_ENGINE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
}
"""What the engines set for themselves on a machine without a GPU, before they import their package."""

MODULES = {
    "synthetic": ["mismatchscope.engines.synthetic.engine", "mismatchscope.engines.runtime.tasks"],
    "transformers": ["mismatchscope.engines.transformers.engine", "mismatchscope.engines.runtime.tasks", "peft"],
    "vllm": ["vllm", "vllm.v1.engine.llm_engine", "vllm.v1.worker.cpu_worker"],
    "sglang": ["sglang.srt.entrypoints.engine", "sglang.srt.managers.scheduler"],
}
"""What is imported before anything is forked, by engine; nothing for another."""

_CLIENT = """#!{python} -IS
import sys
sys.path.insert(0, {support!r})
import fork_server
fork_server.call({address!r}, {real!r})
"""


def interpreter(python: Path, engine: str) -> Path:
    """Start a server in the environment of `python`, which ends with this process; returns what stands for it."""
    directory = Path(tempfile.mkdtemp(prefix="fork-server-"))  # a short path, as that of a socket must be
    address, client = directory / "socket", directory / "python"
    client.write_text(
        _CLIENT.format(
            python=sys.executable, support=str(Path(__file__).parent), address=str(address), real=str(python)
        )
    )
    client.chmod(0o700)
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen(
            [python, __file__, address, engine],
            env=os.environ | PREPARED | {"PATH": f"{python.parent}:{os.environ['PATH']}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    atexit.register(process.communicate)
    (directory / "pid").write_text(str(process.pid))
    if process.stdout.readline() != b"ready\n":
        raise RuntimeError((directory / "log").read_text()[-3000:])
    return client


def server_of(client: Path) -> int:
    """The process whose children are the workers of an `interpreter`."""
    return int(client.with_name("pid").read_text())


def call(address: str, python: str) -> None:
    """The client: have the server run a module that this process was asked to run, and end as that does.

    Anything else is for `python` itself.
    """
    if sys.argv[1] != "-m":
        os.execv(python, [python, *sys.argv[1:]])
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(address)
        limit = resource.getrlimit(resource.RLIMIT_AS)
        message = {"arguments": sys.argv[2:], "environment": dict(os.environ), "directory": os.getcwd()}
        message["address_space"] = limit
        socket.send_fds(connection, [json.dumps(message).encode()], [0, 1, 2])
        status = int(connection.recv(16) or 1)
    if status < 0:
        os.kill(os.getpid(), -status)
    sys.exit(status)


def serve(address: str, ready: int) -> dict[str, str] | None:
    """Fork until standard input ends. Returns once in every forked process: what it is to run."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(address)
        server.listen()
        os.write(ready, b"ready\n")
        os.close(ready)
        while server in select.select([server, 0], [], [])[0]:
            connection, _ = server.accept()
            with connection:
                message, streams, *_ = socket.recv_fds(connection, 2**20, 3)
                process = os.fork()
                if process == 0:
                    os.setsid()
                    for number, stream in enumerate(streams):
                        os.dup2(stream, number)
                        os.close(stream)
                    return json.loads(message)
                for stream in streams:
                    os.close(stream)
                with suppress(BrokenPipeError):
                    connection.send(str(_wait(process, connection)).encode())
    shutil.rmtree(Path(address).parent)
    return None


def _wait(process: int, client: socket.socket) -> int:
    """The exit code of a process, which is killed if its client is gone first; and then all that it started."""
    descriptor = os.pidfd_open(process)
    if descriptor not in select.select([descriptor, client], [], [])[0]:
        os.kill(process, signal.SIGKILL)
    os.close(descriptor)
    status = os.waitpid(process, 0)[1]
    with suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(status)


def run(arguments: list[str], environment: dict[str, str], directory: str, address_space: tuple[int, int]) -> None:
    """Be `python -m MODULE ARGUMENTS…` in this process, in the client's directory and within its memory."""
    os.chdir(directory)
    resource.setrlimit(resource.RLIMIT_AS, address_space)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = environment["PYTHONPATH"].split(os.pathsep)
    module, *sys.argv[1:] = arguments
    random.seed()
    status = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # to take down what the server imported would take as long as to import it


def fork_instead_of_spawning() -> None:
    """Let SGLang's own processes be forks too, which load its plugins, and so our hooks, as new ones would."""
    import sglang.srt.plugins as plugins

    def forget_plugins() -> None:
        plugins._plugins_loaded = False

    multiprocessing.set_start_method("fork")
    multiprocessing.set_start_method = lambda *method, force: None
    os.register_at_fork(after_in_child=forget_plugins)


if __name__ == "__main__":
    ready = os.dup(1)
    os.dup2(2, 1)  # engines print while they are imported
    for name in MODULES.get(sys.argv[2], []):
        importlib.import_module(name)
    gc.freeze()  # what all share is collected by none, and so stays shared
    if sys.argv[2] == "sglang":
        fork_instead_of_spawning()
    wanted = serve(sys.argv[1], ready)
    if wanted is not None:
        run(**wanted)
