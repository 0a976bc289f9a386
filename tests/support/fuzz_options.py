"""Commands with odd options, in odd places, under odd environment variables."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from forked_command import Run
from fuzz_material import BEHAVIOR, REFERENCE, TINY, Workers, cache

_SYNTHETIC = ["--behavior", "{spec}", "--reference", REFERENCE, *TINY, "full", "--no-repeats"]
_TWO = ["{trace}", "material/reference", "-o", "{out}"]
_COMMANDS = (
    ["report", "{report}", "-f", "{format}"],
    ["report", "{report}", "-f", "markdown", "-o", "{out}"],
    ["gate", "{report}", "--fail-on", "{gate}"],
    ["gate", "{report}", "--baseline", "{report}", "--fail-on", "token.tv.mean > +10%", "-o", "{out}"],
    ["gate", "{report}", "--config", "{config}"],
    ["compare", *_TWO],
    ["compare", *_TWO, "--behavior-repeat", "{trace}", "--fail-on", "{gate}"],
    ["compare", *_TWO, "--confidence", "{number}", "--margin", "{number}", "--max-rejected", "{number}"],
    ["compare", *_TWO, "--force", "--policy", "{text}", "--baseline", "{trace}", "--target", "{trace}"],
    ["audit", *_SYNTHETIC, "-o", "{out}"],
    ["audit", *_SYNTHETIC, "-o", "{out}", "--resume"],
    ["audit", *_SYNTHETIC, "-o", "{out}", "--force", "--prompts", "{prompts}", "--prompt-column", "{text}"],
    ["audit", *_SYNTHETIC, "--model", "{model}", "--adapter", "{model}", "-o", "{out}"],
    ["audit", *_SYNTHETIC, "-o", "{out}", "--set", "{assignment}", "--set", "{assignment}"],
    [
        "audit",
        *_SYNTHETIC,
        "-o",
        "{out}",
        "--temperature",
        "{number}",
        "--top-p",
        "{number}",
        "--top-k",
        "{number}",
    ],
    ["audit", *_SYNTHETIC, "-o", "{out}", "--seed", "{number}", "--samples", "{number}", "--budget", "{size}"],
    ["audit", *_SYNTHETIC, "-o", "{out}", "--evidence", "{evidence}", "--config", "{config}"],
    ["rollout", "--engine", "{spec}", "--model", "{model}", "--prompts", "{prompts}", *TINY, "full", "-o", "{out}"],
    ["score", "{trace}", "--engine", "{spec}", "--model", "{model}", "-o", "{out}"],
    ["doctor", "--json"],
    ["doctor"],
    ["env", "list"],
    ["env", "remove", "{spec}"],
    ["{text}", "{text}"],
)
_SOUND = {
    "report": "material/report.json",
    "trace": "material/behavior",
    "out": "out",
    "config": "inputs/run.toml",
    "prompts": "inputs/prompts.jsonl",
    "model": "inputs/model",
    "spec": BEHAVIOR,
    "format": "markdown",
    "gate": "token.tv.mean > 0.9",
    "number": "0.9",
    "text": "raw",
    "assignment": "sampling.seed=1",
    "size": "1GiB",
    "evidence": "sampled",
}
_PATHS = (
    *("", ".", "/", "..", "~", "-", "missing", "missing/below", "a" * 300, "d/" * 2100 + "x", "loop", "dangling"),
    *("material/report.json/x", "material", "empty", "empty.json", "inputs", "closed", "closed/x", "/dev/full"),
    *(
        "/dev/null",
        "/proc/self/mem",
        "/proc/self/environ",
        "/proc/1/environ",
        "nul\0",
        "\udcff",
        "\ud800",
        "é\u202e",
    ),
    *(
        "new\nline",
        "material/behavior/manifest.json",
        "inputs/run.toml",
        "fifo",
        "/etc/shadow",
        "report.json",
        "::",
    ),
)
_TEXTS = (
    *("", " ", "raw", "\0", "\udcff", "x" * 100_000, "\x1b[31m", "[red]", "🦆", "null", "-1", "--", "--force", "é"),
)
_NUMBERS = (
    *("", "0", "-0", "1", "0.5", "1e-320", "1e308", "1e999", "-1", "nan", "inf", "-inf", "9" * 400, "9" * 5000),
    *("0x10", "1_0", "٣", "1.0.0", " 1", "\0", "\udcff", "2147483648", "18446744073709551616", "1e5"),
)
_ODD = {
    "report": _PATHS,
    "trace": _PATHS,
    "out": _PATHS,
    "config": _PATHS,
    "prompts": (*_PATHS, "inputs/prompts.parquet", "x.jsonl", "loop.jsonl", "dir.jsonl", "dir.txt", "dir.parquet"),
    "model": (*_PATHS, "demo:dense", "demo:", "demo:../x", "demo:\0", "a/b/c", "org/name", "http://x/y", "x" * 97),
    "spec": (
        *(*_TEXTS, "synthetic:", "synthetic:noise=", "synthetic:noise=nan", "synthetic:noise=1e999", "synthetic@"),
        *("synthetic:vocabulary=1e3", "synthetic:vocabulary=" + "9" * 30, "synthetic:seed=-1", "synthetic:tv=inf"),
        *("synthetic:mean_length=nan", "synthetic:batch_size=0", "synthetic:python=/dev/null", "vllm", "sglang"),
        *(
            "synthetic:python=material",
            "synthetic:python=missing",
            "synthetic==x",
            "vllm==1.2.3",
            "vllm==" + "1." * 90,
        ),
        *(
            "vllm@http://127.0.0.1:1",
            "vllm@http://[",
            "vllm@http://a:99999999",
            "vllm@file:///etc/passwd",
            "vllm@x\0",
        ),
        *("synthetic:noise=0.1,noise=0.2", "synthetic:{}", "synthetic:seed=[", "transformers:dtype=\udcff"),
        *("synthetic:python=\0", "synthetic:sharpness=inf", "synthetic:cluster=1e-320,tail=1e300,tv=0.1"),
    ),
    "format": (*_TEXTS, "html", "json", "csv", "junit"),
    "gate": (
        *(*_TEXTS, "token.tv.mean", "token.tv.mean > ", "a > 1", "token > 1", "token.tv.mean > 1e999", "worst > 1"),
        *("token.tv.mean > +1e999%", "token.tv.mean > " + "9" * 5000, "a." * 5000 + "b > 1", "worst.0.tv > 1"),
        *("token.tv.mean > ٣", "alpha1.tolerance.p95.value > 0", "alarms.x > 1", "gates > 1", "__class__ > 1"),
        *("corrections.icepop.kept_tokens < 0", "provenance.command > 1", "figures.heat > 1", "counts.tokens > -1"),
    ),
    "number": _NUMBERS,
    "text": (*_TEXTS, "support", "processed", "prompt"),
    "assignment": (
        *(
            *_TEXTS,
            "=",
            "a=b",
            ".=1",
            "sampling=1",
            "sampling.seed.x=1",
            "sampling..=1",
            "gate.fail_on=1",
            "limit=[" * 9,
        ),
        *("limit=" + "[" * 5000, "limit=" + "9" * 5000, "limit=1979-05-27", "model=\0", "behavior={}", "tail=1"),
        *("prompts=1", "prompts=[]", "sampling.seed=1e400", "sampling.temperature=nan", "sampling.seed=inf"),
        *(
            "a." * 5000 + "b=1",
            "gate.fail_on=[1]",
            "budget='9" + "9" * 5000 + "'",
            "evidence='topk:" + "9" * 5000 + "'",
        ),
        *("behavior.engine='x'", "sampling={}", "sampling.x=\ud800", "'sampling'.seed=1", 'model = """\n"""'),
    ),
    "size": (*_NUMBERS, "1 GiB", "GiB", "1e3GiB", "0.1B", "٣GB", "9" * 400 + "TiB"),
    "evidence": (
        *_TEXTS,
        "topk:",
        "topk:0",
        "topk:9999999999",
        "full:nan",
        "full:1e-320",
        "full:2",
        "topk:" + "9" * 5000,
    ),
}
_VARIABLES: dict[str, tuple[str | None, ...]] = {
    "HOME": (None, "", "missing", "/dev/null", "material/report.json", "closed", "\udcff", "relative", "~"),
    "XDG_CACHE_HOME": (
        None,
        "",
        "material/report.json",
        "/dev/null",
        "missing",
        "~",
        "\udcff",
        "a" * 300,
        "closed",
    ),
    "MISMATCHSCOPE_HOME": (
        None,
        "",
        "material/report.json",
        "/dev/null/x",
        "loop",
        "\udcff",
        "~nobody",
        "~missing",
        "closed",
    ),
    "TMPDIR": (None, "", "missing", "material/report.json", "a" * 300, "\udcff", "loop"),
    "LANG": (None, "", "C", "POSIX", "xx_YY.ISO-8859-1", "de_DE.UTF-8"),
    "LC_ALL": (None, "", "C", "tr_TR.UTF-8", "nonsense"),
    "COLUMNS": ("", "0", "-1", "1", "abc", "9" * 30, "80"),
    "LINES": ("", "0", "-1", "abc"),
    "TERM": (None, "", "dumb", "xterm-256color", "\udcff"),
    "PATH": (None, "", ".", "/dev/null", "\udcff"),
    "CC": ("", "missing", "false", "cat", "'", "/dev/null", "\udcff", "material", "cc -x", '"'),
    "GITHUB_STEP_SUMMARY": ("", "missing/x", "material", "/dev/full", "\udcff", "loop", "closed/x"),
    "NO_COLOR": ("", "0"),
    "FORCE_COLOR": ("1", ""),
    "OMP_NUM_THREADS": ("", "abc", "0", "9" * 30),
    "PYTHONPATH": (None, "", "missing", "\udcff", "material"),
    "TZ": ("", "nonsense", "\udcff", ":/dev/zero"),
    "SOURCE_DATE_EPOCH": ("abc", "-1", "9" * 30),
    "MISMATCHSCOPE_API_KEY": ("", "\udcff", "x\ny"),
    "MPLBACKEND": ("nonsense", "", "TkAgg"),
    "MPLCONFIGDIR": ("material/report.json", "missing", "\udcff"),
    "HF_HUB_OFFLINE": ("", "abc"),
}


def odd_commands(count: int, seed: int, root: Path, out: Path, workers: Workers) -> Iterator[Run]:
    """`count` commands of which one or two options are odd, or one or two environment variables, or both."""
    for index in range(count):
        random_ = random.Random(f"options {seed} {index}")
        template = random_.choice(_COMMANDS)
        slots = [place for place, word in enumerate(template) if word.startswith("{")]
        odd = set(random_.sample(slots, min(len(slots), random_.choice((0, 1, 1, 2)))))
        arguments = [
            word if place not in slots else random_.choice(_ODD[word[1:-1]]) if place in odd else _SOUND[word[1:-1]]
            for place, word in enumerate(template)
        ]
        arguments += random_.choice(([], [], ["-q"], ["-v"], ["--no-color"]))
        names = random_.sample(sorted(_VARIABLES), random_.choice((0, 1, 2)) if odd else random_.choice((1, 2, 3)))
        variables = {name: random_.choice(_VARIABLES[name]) for name in names}
        variables = {name: value and value.replace("\0", "") for name, value in variables.items()}
        yield Run(
            out / f"{index:05d}",
            arguments,
            prepare=_surroundings(root),
            environment=_usual(variables) | cache(root) | variables,
            before=_odd_place(0.5 if template[0] == "doctor" else random_.random(), workers),
        )


def _surroundings(root: Path) -> Callable[[Path], None]:
    def prepare(directory: Path) -> None:
        shutil.copytree(root / "full", directory / "material")
        shutil.copytree(root / "inputs", directory / "inputs")
        for name in ("empty", "closed", "dir.jsonl", "dir.txt", "dir.parquet", "home"):
            (directory / name).mkdir()
        (directory / "empty.json").touch()
        for name in ("loop", "loop.jsonl"):
            (directory / name).symlink_to(name)
        (directory / "dangling").symlink_to("nowhere")
        os.mkfifo(directory / "fifo")
        (directory / "closed").chmod(0)

    return prepare


def _usual(variables: dict[str, str | None]) -> dict[str, str | None]:
    """What is set besides. To compile the kernels for each odd cache would take seconds: there they are not."""
    usual: dict[str, str | None] = {"HOME": "home", "HF_HUB_OFFLINE": "1", "GITHUB_STEP_SUMMARY": None}
    return usual | ({"CC": "missing"} if "XDG_CACHE_HOME" in variables else {})


_NOBODY = 65534


def _odd_place(draw: float, workers: Workers) -> Callable[[], None]:
    """Now and then the current directory is gone, or somebody else's."""

    def before() -> None:
        tempfile.tempdir = None
        workers()
        if draw < 0.04:
            gone = Path("gone")
            gone.mkdir()
            os.chdir(gone)
            gone = Path("../gone")
            gone.rmdir()
        elif draw < 0.2 and os.geteuid() == 0:
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)  # to whom nothing here belongs: all of it can only be read

    return before
