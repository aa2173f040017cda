"""Replies that would break the sum, one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.aggregation.admission import NORM_SLACK, REASONS, Schema, admit, reason_of, refuse, update_norm
from llmchain_fl.core.errors import AdmissionError, ConfigError

SECRET = "patient 4711 was given warfarin\x1b[2J"
ASKED = {"q.lora_B": np.zeros((4, 2), np.float32), "head.bias": np.zeros(3, np.float32)}


def delta(**changes):
    rng = np.random.default_rng(0)
    good = {name: rng.standard_normal(array.shape).astype(np.float32) for name, array in ASKED.items()}
    return good | {name.replace("__", "."): array for name, array in changes.items()}


def let_in(arrays, schema=None, *, reply_round=3, answered=()):
    schema = schema or Schema.like(ASKED, max_norm=100.0)
    return admit(arrays, schema, site="north", reply_round=reply_round, open_round=3, answered=answered)


def with_value(value):
    array = np.zeros((4, 2), np.float32)
    array[3, 1] = value
    return delta(q__lora_B=array)


def masked_nan():
    return np.ma.MaskedArray(np.full((4, 2), np.nan, np.float32), mask=True)


HOSTILE = {
    "nothing at all": ("missing-name", {}),
    "an array left out": ("missing-name", {"q.lora_B": ASKED["q.lora_B"]}),
    "a name in other letters": ("missing-name", {"q.lora_b": ASKED["q.lora_B"], "head.bias": ASKED["head.bias"]}),
    "an array too many": ("extra-name", {**delta(), SECRET: np.zeros(1, np.float32)}),
    "a name that is no text": ("extra-name", {**delta(), 7: np.zeros(1, np.float32)}),
    "shape (1,) that broadcasts": ("wrong-shape", delta(head__bias=np.ones(1, np.float32))),
    "shape (1, 2) that broadcasts": ("wrong-shape", delta(q__lora_B=np.ones((1, 2), np.float32))),
    "a zero-dimensional array": ("wrong-shape", delta(head__bias=np.array(1.0, np.float32))),
    "an empty array": ("wrong-shape", delta(head__bias=np.zeros(0, np.float32))),
    "transposed": ("wrong-shape", delta(q__lora_B=np.zeros((2, 4), np.float32))),
    "one axis too many": ("wrong-shape", delta(q__lora_B=np.zeros((1, 4, 2), np.float32))),
    "a terabyte made of one number": (
        "wrong-shape",
        delta(q__lora_B=np.broadcast_to(np.zeros((), np.float32), (10**6, 10**6))),
    ),
    "float64": ("wrong-dtype", delta(head__bias=np.zeros(3, np.float64))),
    "float16": ("wrong-dtype", delta(head__bias=np.zeros(3, np.float16))),
    "big-endian": ("wrong-dtype", delta(head__bias=np.zeros(3, ">f4"))),
    "integers": ("wrong-dtype", delta(head__bias=np.zeros(3, np.int32))),
    "complex": ("wrong-dtype", delta(head__bias=np.zeros(3, np.complex64))),
    "objects": ("wrong-dtype", delta(head__bias=np.array([1.0, None, SECRET], object))),
    "text": ("wrong-dtype", delta(head__bias=np.array([SECRET] * 3))),
    "fields": ("wrong-dtype", delta(head__bias=np.zeros(3, [(SECRET, "f4")]))),
    "a masked array": ("wrong-dtype", delta(q__lora_B=masked_nan())),
    "a subclass of ndarray": ("wrong-dtype", delta(q__lora_B=np.zeros((4, 2), np.float32).view(np.recarray))),
    "a list": ("wrong-dtype", delta(head__bias=[0.0, 0.0, 0.0])),
    "a python number": ("wrong-dtype", delta(head__bias=1.0)),
    "a numpy scalar": ("wrong-dtype", delta(head__bias=np.float32(1.0))),
    "bytes": ("wrong-dtype", delta(head__bias=b"\x00" * 12)),
    "none": ("wrong-dtype", delta(head__bias=None)),
    "nan": ("not-finite", with_value(np.nan)),
    "infinity": ("not-finite", with_value(np.inf)),
    "minus infinity": ("not-finite", with_value(-np.inf)),
    "a huge norm": ("norm", with_value(3e38)),
    "a norm just over": ("norm", with_value(100.0 * (1 + 1e-3))),
}


@pytest.mark.parametrize(("reason", "arrays"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_payload_is_refused_with_its_reason_and_without_its_text(reason, arrays):
    with pytest.raises(AdmissionError) as caught:
        let_in(arrays)
    assert reason_of(caught.value) == reason
    assert caught.value.remedy
    assert "warfarin" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_an_honest_update_comes_back_equal_in_the_order_asked():
    sent = dict(reversed(delta().items()))
    got = let_in(sent)
    assert list(got) == list(ASKED)
    assert all(np.array_equal(got[name], sent[name]) for name in sent)


def test_an_update_of_zeros_is_admitted():
    assert not any(array.any() for array in let_in({n: np.zeros_like(a) for n, a in ASKED.items()}).values())


def test_what_was_admitted_cannot_be_changed_by_the_site_afterwards():
    wide = np.ones((4, 4), np.float32)
    sent = delta(q__lora_B=wide[:, ::2], head__bias=np.broadcast_to(np.float32(2), (3,)))
    got = let_in(sent)
    wide[:] = np.nan
    assert np.array_equal(got["q.lora_B"], np.ones((4, 2)))
    for array in got.values():
        assert array.flags.c_contiguous
        assert array.flags.owndata
        assert array.flags.writeable


@pytest.mark.parametrize("reply_round", [2, 4, 0, -1])
def test_a_reply_to_another_round_is_refused_before_its_arrays_are_looked_at(reply_round):
    with pytest.raises(AdmissionError) as caught:
        let_in({}, reply_round=reply_round)
    assert reason_of(caught.value) == "wrong-round"


def test_a_second_reply_of_a_site_is_refused_and_another_site_is_not():
    with pytest.raises(AdmissionError) as caught:
        let_in(delta(), answered={"south", "north"})
    assert reason_of(caught.value) == "duplicate"
    assert let_in(delta(), answered={"south"})


def test_float16_is_admitted_only_where_it_was_agreed_and_becomes_float32():
    half = Schema.like(ASKED, dtype=np.dtype(np.float16))
    sent = {name: array.astype(np.float16) for name, array in delta().items()}
    got = let_in(sent, half)
    assert all(array.dtype == np.float32 and np.array_equal(array, sent[name]) for name, array in got.items())
    with pytest.raises(AdmissionError) as caught:
        let_in(delta(), half)
    assert reason_of(caught.value) == "wrong-dtype"


@pytest.mark.parametrize("clip", [1e-3, 1.0, 250.0])
def test_a_site_that_clips_to_the_bound_in_float32_is_never_refused(clip):
    schema = Schema.like(ASKED, max_norm=clip)
    for seed in range(50):
        rng = np.random.default_rng(seed)
        raw = {n: (1e3 * rng.standard_normal(a.shape)).astype(np.float32) for n, a in ASKED.items()}
        norm = np.float32(np.sqrt(sum(np.sum(a * a, dtype=np.float32) for a in raw.values())))
        clipped = {name: array * (np.float32(clip) / norm) for name, array in raw.items()}
        assert update_norm(let_in(clipped, schema)) <= clip * (1 + NORM_SLACK)


@pytest.mark.parametrize(("excess", "admitted"), [(-1e-3, True), (NORM_SLACK / 2, True), (NORM_SLACK * 2, False)])
def test_the_bound_holds_over_all_arrays_together_up_to_rounding(excess, admitted):
    asked = {"a": np.zeros(1, np.float32), "b": np.zeros(1, np.float32)}
    sent = {"a": np.array([3.0], np.float32), "b": np.array([4.0], np.float32)}  # norm 5
    schema = Schema.like(asked, max_norm=5.0 / (1 + excess))
    if admitted:
        assert let_in(sent, schema).keys() == sent.keys()
    else:
        with pytest.raises(AdmissionError, match=r"^norm: the update of north has norm 5; at most 4\.9999"):
            let_in(sent, schema)


def test_without_a_bound_any_finite_update_is_admitted():
    assert let_in(with_value(3e38), Schema.like(ASKED))


@given(st.lists(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), max_size=5), max_size=4))
def test_the_norm_is_that_of_all_numbers_in_one_row(rows):
    arrays = {str(i): np.array(row, np.float32) for i, row in enumerate(rows)}
    assert update_norm(arrays) == pytest.approx(math.hypot(*(x for row in rows for x in row)), rel=1e-12)


def test_the_norm_of_the_largest_float32_numbers_is_finite():
    assert update_norm({"a": np.full(1000, 3e38, np.float32)}) == pytest.approx(math.sqrt(1000) * 3e38, rel=1e-6)


@pytest.mark.parametrize("max_norm", [0.0, -1.0, math.nan, math.inf])
def test_a_bound_that_bounds_nothing_or_everything_is_a_fault_of_the_configuration(max_norm):
    with pytest.raises(ConfigError, match="max_norm"):
        Schema.like(ASKED, max_norm=max_norm)


def test_a_schema_lists_all_its_faults_at_once():
    with pytest.raises(ConfigError) as caught:
        Schema({}, np.dtype(np.float64), 0.0)
    assert len(caught.value.faults) == 3


def test_every_reason_has_a_meaning_and_an_error_made_elsewhere_has_the_reason_other():
    for reason in REASONS:
        assert reason_of(refuse(reason, "x", remedy="y")) == reason
    assert reason_of(AdmissionError("something: else", remedy="")) == "other"
