from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_engine import ToyOptions

from mismatchscope.engines import registry
from mismatchscope.engines.spec import EngineSpec, parse_spec, resolve_options, with_adapter
from mismatchscope.errors import SpecError

names = st.from_regex(r"[a-z][a-z0-9_.-]{0,12}", fullmatch=True)
keys = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True).filter(lambda key: key != "python")
plain = st.text(st.characters(blacklist_characters="[]{}(),", blacklist_categories=("Cs",)), max_size=12)
bracketed = st.lists(st.integers(), max_size=3).map(lambda items: str(items).replace(" ", ""))
urls = st.builds(
    "http{}://{}:{}{}".format,
    st.sampled_from(["", "s"]),
    st.sampled_from(["127.0.0.1", "[::1]", "gpu-7.example.org"]),
    st.integers(1, 65535),
    st.sampled_from(["", "/v1", "/v1?key=a:b"]),
)


@given(
    st.builds(
        EngineSpec,
        name=names,
        version=st.none() | st.from_regex(r"[0-9]{1,2}(\.[0-9]{1,3}){0,2}(rc1|\+cpu)?", fullmatch=True),
        url=st.none() | urls,
        options=st.dictionaries(keys, plain | bracketed, max_size=4),
        python=st.none() | st.just("/opt/venv/bin/python"),
    )
)
def test_a_spec_survives_being_printed(spec: EngineSpec) -> None:
    assert parse_spec(str(spec)) == spec


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("transformers", EngineSpec("transformers")),
        (
            "transformers:dtype=float32,attn=eager",
            EngineSpec("transformers", options={"dtype": "float32", "attn": "eager"}),
        ),
        ("vllm==0.32.0:enforce_eager=true", EngineSpec("vllm", "0.32.0", options={"enforce_eager": "true"})),
        ("vllm@http://127.0.0.1:8000", EngineSpec("vllm", url="http://127.0.0.1:8000")),
        ("vllm@http://h:80/v1:a=b", EngineSpec("vllm", url="http://h:80/v1", options={"a": "b"})),
        ("vllm:python=/v/bin/python", EngineSpec("vllm", python="/v/bin/python")),
        (
            "vllm:extra={'a':1,'b':[2,3]},x=a=b",
            EngineSpec("vllm", options={"extra": "{'a':1,'b':[2,3]}", "x": "a=b"}),
        ),
    ],
)
def test_what_people_type(text: str, spec: EngineSpec) -> None:
    assert parse_spec(text) == spec


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":dtype=float32",
        "transformers:",
        "transformers:float32",
        "transformers:dtype=float32,eager",
        "transformers:dtype=float32,",
        "transformers:sizes=[1,2",
        "transformers:a=1,a=2",
        "transformers:python=",
        "vllm@",
        "vllm@localhost:8000",
        "vllm==",
        "two words",
    ],
)
def test_what_is_no_spec(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(text)
    assert caught.value.hint


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.ENGINES, "toy", "toy_engine:ToyEngine")


@pytest.mark.usefixtures("toy")
def test_options_get_their_types() -> None:
    options = resolve_options(
        parse_spec("toy:flag=true,size=3,rate=1e-2,mode=sdpa,limit=none,buckets=[1,2],label=[x]")
    )
    assert options.flag is True
    assert (options.size, options.rate, options.mode, options.limit) == (3, 0.01, "sdpa", None)
    assert (options.buckets, options.label) == ([1, 2], "[x]")
    assert type(resolve_options(parse_spec("toy:limit=5")).limit) is int


@pytest.mark.usefixtures("toy")
def test_an_engine_may_take_any_other_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ToyOptions, "others", "more")
    text = "toy:size=3,more={'x':1},blocks=32,share=0.5,strict=True,nothing=none,kind=fp8,table={'a':[1,2]},v=1.x"
    options = resolve_options(parse_spec(text.replace("'", '"')))
    others = {"blocks": 32, "share": 0.5, "strict": True, "nothing": None, "kind": "fp8", "v": "1.x"}
    assert options == ToyOptions(size=3, more={"x": 1, "table": {"a": [1, 2]}} | others)
    assert resolve_options(parse_spec("toy:size=3")).more is None


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("text", "says", "hints"),
    [
        ("toy:sise=3", "no option 'sise'", "did you mean size?"),
        ("toy:zzz=3", "no option 'zzz'", "flag, size, rate, mode"),
        ("toy:size=many", "size=many", None),
        ("toy:mode=egaer", "mode=egaer", "did you mean eager?"),
        ("toy:flag=perhaps", "flag=perhaps", None),
        ("toyy", "no engine 'toyy'", "did you mean toy?"),
        ("toy@http://h:1", "has no URL", "write toy"),
        ("transformers:gradient_checkpointing=true", "train mode", "train_mode=true"),
        ("synthetic:tv=0.7", "tv + leak", None),
    ],
)
def test_what_an_engine_does_not_take(text: str, says: str, hints: str | None) -> None:
    with pytest.raises(SpecError, match=says.replace("+", r"\+")) as caught:
        resolve_options(parse_spec(text))
    assert hints is None or hints in caught.value.hint


@pytest.mark.parametrize("options", ["hf_token=hf_x", 'engine_args={"api_key":"x"}'])
def test_a_secret_is_refused_and_not_repeated(options: str) -> None:
    with pytest.raises(SpecError, match="is a secret") as caught:
        resolve_options(parse_spec(f"vllm:{options}"))
    assert "hf_x" not in caught.value.message + caught.value.hint
    resolve_options(parse_spec("vllm:max_num_batched_tokens=64,tokenizer_mode=slow"))


@pytest.mark.parametrize("name", ["transformers", "vllm==0.32.0", "sglang"])
def test_the_adapter_of_a_run_is_for_every_spec_that_says_none_of_its_own(name: str) -> None:
    spec = parse_spec(name)
    assert with_adapter(spec, None) == spec
    assert str(with_adapter(spec, "/a")) == f"{name}:adapter=/a"
    for own in ("/b", "none"):
        assert with_adapter(parse_spec(f"{name}:adapter={own}"), "/a").options == {"adapter": own}
        assert resolve_options(parse_spec(f"{name}:adapter={own}")).adapter == own


@pytest.mark.parametrize(
    ("name", "says"),
    [("synthetic", "runs no adapters"), ("vllm@http://127.0.0.1:8000", "cannot give it an adapter")],
)
def test_an_engine_that_runs_no_adapter_is_not_given_one(name: str, says: str) -> None:
    with pytest.raises(SpecError, match=says) as caught:
        with_adapter(parse_spec(name), "/a")
    assert "adapter=PATH" in caught.value.hint
