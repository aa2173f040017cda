from __future__ import annotations

import tracemalloc
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.core.codec_spec import CodecSpec, Name
from llmchain_fl.core.compression.codec import LARGEST
from llmchain_fl.core.compression.update import blob_size, decode, encode
from llmchain_fl.core.errors import AdmissionError, TrainingError
from llmchain_fl.core.privacy.sampling import seeded_uniform

NAMES = get_args(Name)
SHAPES = {"layer.lora_B": (24, 4), "head.bias": (7,), "head.weight": (7, 3)}


def update(seed: int = 1) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


def draw(seed: int = 2) -> Any:
    return np.random.default_rng(seed).random


@pytest.mark.parametrize("name", NAMES)
def test_an_update_comes_back_under_its_names_in_its_shapes(name: Name) -> None:
    spec = CodecSpec(name, share=1.0)
    blobs = encode(update(), spec, draw())
    found = decode(blobs, SHAPES, spec)
    assert list(blobs) == sorted(SHAPES)
    assert {key: len(blob) for key, blob in blobs.items()} == {k: blob_size(s, spec) for k, s in SHAPES.items()}
    assert list(found) == list(SHAPES)
    for key, value in found.items():
        assert (value.dtype, value.shape) == (np.float32, SHAPES[key])
        most = {"none": 1e-9, "bf16": 0.02, "int8": 0.03, "int4": 0.5, "top-k": 0.5}[name]
        assert np.abs(value - update()[key]).max() < most


@pytest.mark.parametrize("name", NAMES)
def test_the_order_in_which_arrays_are_given_changes_nothing(name: Name) -> None:
    there, back = update(), dict(reversed(list(update().items())))
    first, second = (encode(arrays, CodecSpec(name), draw()) for arrays in (there, back))
    assert list(first) == list(second)
    assert [blob.tobytes() for blob in first.values()] == [blob.tobytes() for blob in second.values()]


def test_a_round_with_the_same_seed_is_the_same_bytes_and_another_round_is_not() -> None:
    def bytes_of(number: int) -> list[bytes]:
        blobs = encode(update(), CodecSpec("int4"), seeded_uniform(1, "site-1/rounding", number))
        return [blob.tobytes() for blob in blobs.values()]

    assert bytes_of(3) == bytes_of(3)
    assert bytes_of(3) != bytes_of(4)


def test_arrays_that_lie_otherwise_in_memory_are_the_same_numbers() -> None:
    value = update()["layer.lora_B"]
    spec = CodecSpec("int8")
    plain = encode({"x": value}, spec, draw())["x"]
    assert encode({"x": np.asfortranarray(value)}, spec, draw())["x"].tobytes() == plain.tobytes()
    assert encode({"x": value.astype(np.float64)}, spec, draw())["x"].tobytes() == plain.tobytes()


def test_a_number_alone_and_an_array_of_none() -> None:
    for name in NAMES:
        found = decode(
            encode({"a": np.array(1.5, np.float32), "b": np.zeros((0, 4), np.float32)}, CodecSpec(name), draw()),
            {"a": (), "b": (0, 4)},
            CodecSpec(name),
        )
        assert float(found["a"]) == pytest.approx(1.5, rel=2.0**-6)
        assert found["b"].shape == (0, 4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1.0001 * LARGEST])
def test_a_site_does_not_encode_what_is_not_finite(name: Name, bad: float) -> None:
    with pytest.raises(TrainingError, match=r"'x' .* not finite or above 2\*\*127"):
        encode({"x": np.array([1.0, bad], dtype=np.float32)}, CodecSpec(name), draw())


@pytest.mark.parametrize("name", NAMES)
def test_the_largest_numbers_that_are_encoded_come_back_finite(name: Name) -> None:
    x = {"x": np.array([LARGEST, -LARGEST, 1.0], dtype=np.float32)}
    found = decode(encode(x, CodecSpec(name, share=1.0), draw()), {"x": (3,)}, CodecSpec(name, share=1.0))
    assert found["x"][:2] == pytest.approx([LARGEST, -LARGEST], rel=0.01)


def broken(what: str) -> dict[str, Any]:
    blobs: dict[str, Any] = encode(update(), CodecSpec("int8"), draw())
    blob = blobs["head.bias"]
    worse: dict[str, Any] = {
        "list": blob.tolist(),
        "masked": np.ma.masked_array(blob),
        "signed": blob.view(np.int8),
        "float": blob.astype(np.float32),
        "objects": blob.astype(object),
        "two axes": blob[None],
        "no axis": np.uint8(3),
        "short": blob[:-1],
        "long": np.append(blob, np.uint8(0)),
        "empty": blob[:0],
    }
    if what == "missing":
        del blobs["head.bias"]
    elif what == "renamed":
        blobs["a record"] = blobs.pop("head.bias")
    elif what == "extra":
        blobs["a record"] = blob
    else:
        blobs["head.bias"] = worse[what]
    return blobs


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("missing", "missing-name"),
        ("renamed", "missing-name"),
        ("extra", "extra-name"),
        *[(what, "wrong-dtype") for what in ("list", "masked", "signed", "float", "objects", "no axis")],
        *[(what, "undecodable") for what in ("two axes", "short", "long", "empty")],
    ],
)
def test_a_reply_that_is_not_what_was_asked_for_is_refused_whole(what: str, reason: str) -> None:
    with pytest.raises(AdmissionError) as found:
        decode(broken(what), SHAPES, CodecSpec("int8"), "site-1")
    assert found.value.what.partition(":")[0] == reason
    assert "site-1" in found.value.what
    assert "a record" not in str(found.value)


@pytest.mark.parametrize("name", ["none", "bf16"])
@pytest.mark.parametrize("bits", [0x7FC0, 0x7F80, 0xFF80])
def test_numbers_that_are_not_finite_are_refused(name: Name, bits: int) -> None:
    blobs: dict[str, Any] = encode(update(), CodecSpec(name), draw())
    blob = blobs["head.bias"].copy()
    blob[-2:] = [bits & 255, bits >> 8]
    with pytest.raises(AdmissionError, match=r"^not-finite: 'head.bias' of site-1"):
        decode({**blobs, "head.bias": blob}, SHAPES, CodecSpec(name), "site-1")


def test_a_scale_whose_steps_leave_float32_is_refused_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    blob = np.array([0x7F, 0x7F, 127], dtype=np.uint8)
    with pytest.raises(AdmissionError, match=r"^not-finite"):
        decode({"x": blob}, {"x": (1,)}, CodecSpec("int8"))
    assert not recwarn.list


@given(st.sampled_from(NAMES), st.integers(1, 40), st.data())
def test_any_bytes_are_either_an_update_or_refused(name: Name, n: int, data: st.DataObject) -> None:
    spec = CodecSpec(name, block=8, share=0.3)
    size = blob_size((n,), spec)
    blob = np.frombuffer(data.draw(st.binary(min_size=size, max_size=size)), dtype=np.uint8)
    reason = ""
    try:
        found = decode({"x": blob}, {"x": (n,)}, spec)["x"]
    except AdmissionError as error:
        reason = error.what.partition(":")[0]
    assert reason in ("", "undecodable", "not-finite")
    if not reason:
        assert (found.dtype, found.shape) == (np.float32, (n,))
        assert np.isfinite(found).all()
        found += 1  # nobody else holds it, and it can be written to


@pytest.mark.parametrize("name", NAMES)
def test_a_blob_of_a_terabyte_is_refused_before_it_is_read(name: Name) -> None:
    huge = np.broadcast_to(np.zeros(1, dtype=np.uint8), (2**40,))
    tracemalloc.start()
    try:
        with pytest.raises(AdmissionError, match=r"^undecodable"):
            decode({"x": huge}, {"x": (10,)}, CodecSpec(name))
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", NAMES)
def test_decoding_takes_a_constant_number_of_bytes_for_each_number(name: Name) -> None:
    n, spec = 200_000, CodecSpec(name)
    blobs = encode({"x": np.random.default_rng(1).standard_normal(n).astype(np.float32)}, spec, draw())
    tracemalloc.start()
    try:
        decode(blobs, {"x": (n,)}, spec)
        assert tracemalloc.get_traced_memory()[1] < 20 * n
    finally:
        tracemalloc.stop()
