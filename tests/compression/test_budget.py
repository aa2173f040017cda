from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest

from llmchain_fl.core.codec_spec import CodecSpec, Name
from llmchain_fl.core.compression.update import encode
from llmchain_fl.planning.budget import budget, faults, link_faults, seconds_on, upload_line

SHAPES = {"layer.lora_B": (384, 8), "head.weight": (77, 384), "head.bias": (77,)}
UNBIASED = ("none", "bf16", "int8", "int4")


@pytest.mark.parametrize("name", get_args(Name))
def test_the_budget_is_what_a_round_takes_to_the_byte(name: Name) -> None:
    spec = CodecSpec(name)
    delta = {key: np.ones(shape, dtype=np.float32) for key, shape in SHAPES.items()}
    blobs = encode(delta, spec, np.random.default_rng(1).random)
    assert budget(SHAPES, spec) == sum(blob.nbytes for blob in blobs.values())


def test_without_a_codec_it_is_four_bytes_a_number() -> None:
    assert budget(SHAPES, CodecSpec()) == 4 * (384 * 8 + 77 * 384 + 77)


def test_a_kilobit_is_a_thousand_bits_and_no_link_takes_no_time() -> None:
    assert seconds_on(32_000, 256) == 1.0
    assert seconds_on(32_000, 0) == 0.0


@pytest.mark.parametrize(
    ("size", "link", "line"),
    [
        (13_800, 256.0, "up 13.8 KB a round and site (0.11 of both factors in fp32), 0.4 s at 256 kbit/s"),
        (13_800, 0.0, "up 13.8 KB a round and site (0.11 of both factors in fp32)"),
        (812, 64.0, "up 812 B a round and site (0.0065 of both factors in fp32), 0.1 s at 64 kbit/s"),
        (12_400_000, 0.0, "up 12.4 MB a round and site (99 of both factors in fp32)"),
    ],
)
def test_the_line_of_the_report(size: int, link: float, line: str) -> None:
    assert upload_line(size, 125_000, link) == line


@pytest.mark.parametrize("name", UNBIASED)
@pytest.mark.parametrize("steady", [True, False])
@pytest.mark.parametrize("unit", ["", "person", "record", "site"])
def test_what_is_unbiased_and_has_no_memory_goes_with_everything(name: Name, steady: bool, unit: str) -> None:
    assert faults(CodecSpec(name), rule="any", steady=steady, unit=unit) == []


@pytest.mark.parametrize(
    ("spec", "steady", "unit", "told"),
    [
        (CodecSpec("top-k"), False, "", ['aggregation.rule = "fedsvd"']),
        (CodecSpec("int4", feedback=True), False, "", ['aggregation.rule = "fedsvd"']),
        (CodecSpec("top-k", feedback=True), True, "site", ["no noise has covered"]),
        (CodecSpec("top-k", feedback=True), False, "site", ['aggregation.rule = "fedsvd"', "no noise has covered"]),
        (CodecSpec("none", feedback=True), True, "", ["nothing to remember"]),
        (CodecSpec("int4", block=256, feedback=True), True, "", ["compression.block = 256 is too long"]),
        (CodecSpec("top-k", block=256, feedback=True), True, "", ["compression.block = 256 is too long"]),
        (CodecSpec("int8", block=65_536, feedback=True), True, "", ["compression.block = 65536 is too long"]),
        (CodecSpec("int8", block=4096, feedback=True), True, "", []),
        (CodecSpec("top-k", feedback=True), True, "person", []),
        (CodecSpec("top-k"), True, "site", []),
        (CodecSpec("int4", block=192, feedback=True), True, "record", []),
        (CodecSpec("int8", block=65_536), True, "record", []),
    ],
)
def test_what_may_not_be_combined(spec: CodecSpec, steady: bool, unit: str, told: list[str]) -> None:
    found = faults(spec, rule="fedsvd", steady=steady, unit=unit)
    assert len(found) == len(told)
    assert all(part in fault for part, fault in zip(told, found, strict=True))


def linked(**changes: Any) -> list[str]:
    asked = {"spec": CodecSpec(), "steady": True, "link_kbit": 64.0, "max_seconds": 5.0, **changes}
    return link_faults({"an odd round": SHAPES, "an even round": {"x": (4,)}}, asked.pop("spec"), **asked)


def test_a_link_that_is_too_slow_is_told_with_value_bound_and_what_would_fit() -> None:
    size = budget(SHAPES, CodecSpec())
    assert linked() == [
        f'compression.up = "none" sends {size / 1000:.1f} KB in an odd round: {size / 8000:.1f} s at 64 kbit/s, more '
        f'than compression.max_seconds = 5; set it to "int8" (4.2 s) or "int4" (2.2 s) or "top-k" (0.3 s)'
    ]


def test_only_codecs_that_the_rule_allows_are_named() -> None:
    assert "top-k" not in linked(steady=False)[0]
    assert linked(steady=False)[0].endswith('set it to "int8" (4.2 s) or "int4" (2.2 s)')


def test_where_nothing_fits_the_adapter_has_to_be_smaller() -> None:
    assert linked(max_seconds=0.1)[0].endswith("lower adapter.rank, or take a rule that sends less")


def test_a_link_that_is_fast_enough_or_not_given_has_no_fault() -> None:
    assert linked(spec=CodecSpec("int4")) == []
    assert linked(link_kbit=0.0) == []
    seconds = seconds_on(budget(SHAPES, CodecSpec()), 64)
    assert linked(max_seconds=seconds) == []
    assert len(linked(max_seconds=seconds - 1e-6)) == 1
