"""May a run go on in a directory? The manifest there decides."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from builders import manifest, records
from trace_contents import files

from mismatchscope.errors import OutputExistsError
from mismatchscope.records import Evidence
from mismatchscope.traces import ModelFacts, Trace, create, finish, read_manifest, write_records


def test_creating_the_same_trace_again_resumes_it_and_adds_what_was_learnt(tmp_path: Path) -> None:
    path = create(tmp_path / "t", manifest(model=ModelFacts(name="tiny"), created="first"))
    learnt = manifest(engine_version="5.1", environment={"torch": "2.13"}, created="second")
    create(path, learnt)
    create(path, manifest(model=ModelFacts(name="tiny")))
    found = read_manifest(path)
    assert found.engine_version == "5.1"
    assert found.environment == {"torch": "2.13"}
    assert found.model == learnt.model
    assert found.created == "first"


def test_a_run_goes_on_after_its_interpreter_has_moved(tmp_path: Path) -> None:
    path = create(tmp_path / "t", manifest(environment={"torch": "2.13", "executable": "/old/bin/python"}))
    create(path, manifest(environment={"torch": "2.13", "executable": "/new/bin/python"}))
    assert read_manifest(path).environment["executable"] == "/new/bin/python"
    with pytest.raises(OutputExistsError, match=r"environment\.torch"):
        create(path, manifest(environment={"torch": "2.14"}))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"sampling": {"temperature": 0.7}}, r"sampling\.temperature is 1\.0 there and 0\.7 here"),
        ({"evidence": Evidence("sampled")}, r"evidence\.level"),
        ({"model": ModelFacts(name="tiny", weights_sha256="other")}, r"model\.weights_sha256"),
        ({"settings": {"dtype": "bfloat16"}}, r"settings\.dtype"),
        ({"sampling": {"min_p": 0.1, "seed": 0}}, r"sampling\.min_p"),
        ({"parent": "0" * 64}, "parent"),
    ],
)
def test_another_trace_is_never_overwritten(tmp_path: Path, change: dict, named: str) -> None:
    create(tmp_path / "t", manifest())
    before = files(tmp_path)
    with pytest.raises(OutputExistsError, match=named):
        create(tmp_path / "t", manifest(**change))
    assert files(tmp_path) == before


@pytest.mark.parametrize("scaling", [None, {"type": "yarn"}])
def test_the_same_weights_with_another_configuration_are_another_run(tmp_path: Path, scaling: dict | None) -> None:
    config = {"rope_theta": 10000.0, "rope_scaling": None}
    facts = {"name": "tiny", "weights_sha256": "w", "vocabulary_size": 16}
    create(tmp_path / "t", manifest(model=ModelFacts(**facts, config=config)))
    create(tmp_path / "t", manifest(model=ModelFacts(**facts)))  # a manifest that does not say contradicts none
    other = config | ({"rope_theta": 5e5} if scaling is None else {"rope_scaling": scaling})
    with pytest.raises(OutputExistsError, match=r"model\.config\.rope_(theta|scaling)"):
        create(tmp_path / "t", manifest(model=ModelFacts(**facts, config=other)))


def test_the_raw_view_never_overwrites_another_trace(filled: Path, tmp_path: Path) -> None:
    write_records(tmp_path / "trace-raw", manifest(engine="vllm"), records([3]))
    with pytest.raises(OutputExistsError, match="engine is 'vllm' there"):
        finish(filled)
    shutil.rmtree(tmp_path / "trace-raw")
    assert finish(filled).complete
    assert Trace.open(tmp_path / "trace-raw").manifest.policy == "raw"


def test_a_complete_trace_is_never_written_again(tmp_path: Path) -> None:
    write_records(tmp_path / "t", manifest(), records([3]))
    with pytest.raises(OutputExistsError, match="complete trace"):
        write_records(tmp_path / "t", manifest(), records([3]))
    create(tmp_path / "t", manifest())
    assert Trace.open(tmp_path / "t").manifest.complete


def test_a_directory_or_file_that_is_no_trace_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("…")
    with pytest.raises(OutputExistsError, match="not empty and no trace"):
        create(tmp_path / "thesis", manifest())
    (tmp_path / "file").write_text("…")
    with pytest.raises(OutputExistsError, match="is a file"):
        create(tmp_path / "file", manifest())


def test_a_hash_is_shown_by_its_first_digits(tmp_path: Path) -> None:
    create(tmp_path / "t", manifest(prompts_sha256="a1" * 32))
    with pytest.raises(
        OutputExistsError, match=r"prompts_sha256 is 'a1a1a1a1a1a1' there and 'b2b2b2b2b2b2' here\."
    ):
        create(tmp_path / "t", manifest(prompts_sha256="b2" * 32))
