from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mismatchscope.measures import compiled

pytestmark = pytest.mark.slow

needs_compiler = pytest.mark.skipif(
    shutil.which((os.environ.get("CC") or "cc").split()[0]) is None, reason="there is no C compiler"
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "answer.c"
    path.write_text("int answer(void) { return 42; }\n")
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mismatchscope" / "compiled"


@pytest.fixture
def wrapped_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put a shell script in the compiler's place; it ends by calling the real one. Returns its log."""

    def install(before: str = "") -> Path:
        log = tmp_path / "compiler.log"
        script = tmp_path / "wrapped-cc"
        script.write_text(f'#!/bin/sh\necho "$@" >> {log}\n{before}\nexec cc "$@"\n')
        script.chmod(0o755)
        monkeypatch.setenv("CC", str(script))
        return log

    return install


def in_another_process(source: Path, stderr: int | None = None) -> subprocess.Popen[str]:
    code = (
        "import sys, pathlib; from mismatchscope.measures import compiled; "
        "print(compiled.load([pathlib.Path(sys.argv[1])]).answer())"
    )
    command = [sys.executable, "-c", code, str(source)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)


@needs_compiler
def test_compiles_once_and_then_loads_the_cached_library(source, cache, wrapped_compiler):
    log = wrapped_compiler()
    assert compiled.load([source]).answer() == 42
    assert compiled.load([source]).answer() == 42
    assert len(log.read_text().splitlines()) == 1
    assert [path.suffix for path in cache.iterdir()] == [".so"]


@needs_compiler
def test_another_source_is_another_library(source, cache):
    compiled.load([source])
    source.write_text("int answer(void) { return 43; }\n")
    assert compiled.load([source]).answer() == 43
    assert len(list(cache.iterdir())) == 2


@needs_compiler
def test_files_that_call_and_include_each_other_are_one_library(source, cache):
    header, other = source.with_name("numbers.h"), source.with_name("twice.c")
    header.write_text("enum { TIMES = 2 };\n")
    other.write_text('#include "numbers.h"\nint answer(void);\nint twice(void) { return TIMES * answer(); }\n')
    assert compiled.load([source, header, other]).twice() == 84
    header.write_text("enum { TIMES = 3 };\n")
    assert compiled.load([source, header, other]).twice() == 126
    assert len(list(cache.iterdir())) == 2


@needs_compiler
@pytest.mark.parametrize(("unknown", "tried"), [("-march=native", 3), ("-mprefer-vector-width", 2)])
def test_a_compiler_without_a_flag_still_serves(source, cache, wrapped_compiler, unknown, tried):
    log = wrapped_compiler(f'case "$*" in *{unknown}*) exit 1;; esac')
    assert compiled.load([source]).answer() == 42
    assert len(log.read_text().splitlines()) == tried


def test_no_compiler_says_which_one_is_missing(source, cache, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler -m64")
    with pytest.raises(compiled.CompileError, match="'no-such-compiler'"):
        compiled.load([source])


def test_no_compiler_on_the_path(source, cache, monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(compiled.CompileError, match="'cc'"):
        compiled.load([source])


@needs_compiler
def test_a_refused_source_carries_what_the_compiler_said(source, cache):
    source.write_text("int answer(void) { return forty_two; }\n")
    with pytest.raises(compiled.CompileError, match="forty_two"):
        compiled.load([source])
    assert list(cache.glob("*")) == []


@needs_compiler
def test_a_cache_that_cannot_be_written_is_done_without(source, tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert compiled.load([source]).answer() == 42


FOREIGN = '__attribute__((constructor)) static void run(void) { write(2, "FOREIGN", 7); }'


def foreign_library(library: Path) -> None:
    """A whole library that says when it is loaded."""
    arguments = ["cc", "-shared", "-fPIC", "-include", "unistd.h", "-x", "c", "-", "-o", str(library)]
    subprocess.run(arguments, input=FOREIGN, text=True, check=True)


def truncated(library: Path) -> None:
    library.write_bytes(library.read_bytes()[:9000])


def one_byte_changed(library: Path) -> None:
    content = bytearray(library.read_bytes())
    content[len(content) // 3] ^= 255
    library.write_bytes(content)


def linked(library: Path) -> None:
    other = library.with_name("other")
    foreign_library(other)
    library.unlink()
    library.symlink_to(other)


def pipe(library: Path) -> None:
    library.unlink()
    os.mkfifo(library)


@needs_compiler
@pytest.mark.parametrize(
    "damage",
    [lambda library: library.write_bytes(b""), truncated, one_byte_changed, foreign_library, linked, pipe],
)
def test_a_cached_library_that_is_not_what_was_written_is_compiled_again(
    source: Path, cache: Path, wrapped_compiler, damage
) -> None:
    log = wrapped_compiler()
    in_another_process(source).communicate(timeout=60)
    (library,) = cache.iterdir()
    damage(library)
    for _ in range(2):  # and the second finds what the first mended
        other = in_another_process(source, stderr=subprocess.PIPE)
        assert other.communicate(timeout=60) == ("42\n", "")
    assert len(log.read_text().splitlines()) == 2


def writable_file(library: Path) -> None:
    library.chmod(0o666)


def writable_directory(library: Path) -> None:
    library.parent.chmod(0o777)


def of_another_user(library: Path) -> None:
    os.chown(library.parent, 54321, -1)


@needs_compiler
@pytest.mark.parametrize(
    "give_away",
    [
        writable_file,
        writable_directory,
        pytest.param(
            of_another_user,
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user"),
        ),
    ],
)
def test_a_cached_library_that_others_can_write_is_not_loaded(
    source: Path, cache: Path, wrapped_compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, give_away
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    log = wrapped_compiler()
    in_another_process(source).communicate(timeout=60)
    (library,) = cache.iterdir()
    foreign_library(library)
    give_away(library)
    theirs = library.read_bytes()
    assert in_another_process(source, stderr=subprocess.PIPE).communicate(timeout=60) == ("42\n", "")
    assert len(log.read_text().splitlines()) == 2
    # Kept elsewhere, where only we can write.
    assert give_away is writable_file or library.read_bytes() == theirs


@needs_compiler
def test_processes_that_compile_at_the_same_time_all_load_a_whole_library(source, cache, wrapped_compiler):
    log = wrapped_compiler("sleep 0.3")  # so that each one begins before another has finished
    workers = [in_another_process(source) for _ in range(3)]
    assert [worker.communicate(timeout=60)[0].strip() for worker in workers] == ["42"] * 3
    assert len(log.read_text().splitlines()) > 1
    assert len(list(cache.iterdir())) == 1
