from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.core.codec_spec import CodecSpec, Name
from llmchain_fl.core.compression import CODECS
from llmchain_fl.core.errors import ConfigError

SPECS = st.builds(
    CodecSpec, name=st.sampled_from(get_args(Name)), block=st.integers(1, 300), share=st.floats(0.001, 1.0)
)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "zip"}, "no codec of that name"),
        ({"block": 0}, "block is 0"),
        ({"block": 65_537}, "block is 65537"),
        ({"share": 0.0}, "share is 0.0"),
        ({"share": 1.1}, "share is 1.1"),
        ({"share": float("nan")}, "share is nan"),
    ],
)
def test_a_codec_out_of_its_bounds_is_refused_with_the_value(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        CodecSpec(**changes)


def test_all_faults_of_a_codec_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as found:
        CodecSpec("zip", 0, 2.0)  # type: ignore[arg-type]
    assert len(found.value.faults) == 3


def test_a_codec_survives_json_and_an_unknown_field_does_not() -> None:
    adapter = pydantic.TypeAdapter(CodecSpec)
    spec = CodecSpec("top-k", 32, 0.1, True)
    assert adapter.validate_json(adapter.dump_json(spec)) == spec
    for text in ('{"name":"int8","level":3}', '{"name":"zip"}', '{"block":"64"}'):
        with pytest.raises((pydantic.ValidationError, ConfigError)):
            adapter.validate_json(text)


def test_every_name_has_a_codec_and_every_codec_a_name() -> None:
    assert set(CODECS) == set(get_args(Name))
    assert {name for name, codec in CODECS.items() if not codec.unbiased} == {"top-k"}


@given(SPECS, st.integers(0, 700), st.integers(0, 2**32 - 1))
def test_the_length_depends_on_public_constants_only(spec: CodecSpec, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codec = CODECS[spec.name]
    for x in (np.zeros(n), rng.standard_normal(n), 1e30 * rng.standard_normal(n) * (rng.random(n) < 0.1)):
        blob = codec.encode(x.astype(np.float32), spec, rng.random)
        assert (blob.dtype, blob.shape) == (np.uint8, (codec.size(n, spec),))
        assert codec.decode(blob, n, spec, "x").shape == (n,)


@given(SPECS, st.integers(1, 400), st.integers(0, 2**32 - 1))
def test_the_expected_error_keeps_the_bound_that_the_codec_promises(spec: CodecSpec, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codec, x = CODECS[spec.name], rng.standard_normal(n).astype(np.float32) ** 3
    errors = [
        float(np.square(codec.decode(codec.encode(x, spec, rng.random), n, spec, "x") - x, dtype=np.float64).sum())
        for _ in range(20)
    ]
    slack = 5 * float(np.std(errors)) / 20**0.5
    assert np.mean(errors) - slack <= codec.error(n, spec) * float(np.square(x, dtype=np.float64).sum()) + 1e-12


@pytest.mark.parametrize(
    ("name", "bits"), [("none", 32), ("bf16", 16), ("int8", 8.25), ("int4", 4.25), ("top-k", 0.525)]
)
def test_bits_of_a_number_are_those_of_the_docs(name: Name, bits: float) -> None:
    spec = CodecSpec(name)
    assert 8 * CODECS[name].size(64_000, spec) / 64_000 == pytest.approx(bits, abs=0.001)


@pytest.mark.parametrize("name", get_args(Name))
def test_one_machine_or_another_the_bytes_of_equal_draws_are_equal(name: Name) -> None:
    spec = replace(CodecSpec(), name=name)
    x = np.random.default_rng(1).standard_normal(333).astype(np.float32)
    first, second = (CODECS[name].encode(x, spec, np.random.default_rng(2).random) for _ in "ab")
    assert first.tobytes() == second.tobytes()
