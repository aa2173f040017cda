"""What a codec leaves out is delayed and not lost. What a site keeps of it on disk: ``tests/client/test_memory.py``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from llmchain_fl.core.codec_spec import CodecSpec
from llmchain_fl.core.compression.error_feedback import encode_with_memory
from llmchain_fl.core.compression.update import decode, encode
from llmchain_fl.core.errors import TrainingError
from llmchain_fl.core.privacy.sampling import seeded_uniform

SPEC = CodecSpec("top-k", share=0.1, feedback=True)
SHAPES = {"layer.lora_B": (10, 6), "head.bias": (9,)}


def update(number: int, shapes: Any = SHAPES) -> dict[str, Any]:
    rng = np.random.default_rng(number)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


class Site:
    """Rounds of one site, one after the other; ``kept`` is what they left out so far."""

    def __init__(self, spec: CodecSpec = SPEC) -> None:
        self.spec, self.kept = spec, {}

    def play(self, number: int, delta: Any = None) -> Any:
        draw = seeded_uniform(1, "site-1/rounding", number)
        blobs, self.kept = encode_with_memory(self.kept, update(number) if delta is None else delta, self.spec, draw)
        return blobs


def bytes_of(blobs: Any) -> list[tuple[str, bytes]]:
    return [(name, blob.tobytes()) for name, blob in blobs.items()]


@pytest.mark.parametrize("spec", [SPEC, replace(SPEC, name="int4"), replace(SPEC, name="bf16")])
def test_nothing_is_lost_only_delayed(spec: CodecSpec) -> None:
    site = Site(spec)
    sent = [decode(site.play(number), SHAPES, spec) for number in range(1, 31)]
    for name in SHAPES:
        total = np.sum([update(number)[name] for number in range(1, 31)], axis=0, dtype=np.float64)
        arrived = np.sum([arrays[name] for arrays in sent], axis=0, dtype=np.float64)
        assert arrived + site.kept[name] == pytest.approx(total, abs=1e-4)
        assert np.abs(site.kept[name]).max() > 0


def test_the_memory_stays_bounded_where_the_codec_contracts() -> None:
    site, ones = Site(), {"x": np.ones(50, dtype=np.float32)}
    norms = []
    for number in range(1, 200):
        site.play(number, ones)
        norms.append(float(np.linalg.norm(site.kept["x"])))
    bound = 2 / 0.1 * 50**0.5  # Karimireddy et al., lemma 3: ||e|| <= 2 sqrt(1 - d) / d ||x||, d = k / n
    assert max(norms) <= bound
    assert max(norms[100:]) <= 1.1 * max(norms[:100])


def test_small_numbers_get_through_in_the_end_and_without_memory_never() -> None:
    x = {"x": np.concatenate([np.full(5, 1.0), np.full(45, 0.1)]).astype(np.float32)}
    site, with_memory, without = Site(), np.zeros(50), np.zeros(50)
    for number in range(1, 101):
        with_memory += decode(site.play(number, x), {"x": (50,)}, SPEC)["x"]
        without += decode(encode(x, SPEC, np.random.default_rng(number).random), {"x": (50,)}, SPEC)["x"]
    assert (without[5:] == 0).all()
    assert with_memory / 100 == pytest.approx(x["x"], rel=0.25)


def test_the_first_round_is_the_codec_alone() -> None:
    plain = encode(update(1), SPEC, seeded_uniform(1, "site-1/rounding", 1))
    assert bytes_of(Site().play(1)) == bytes_of(plain)


def test_an_array_that_is_not_trained_in_a_round_keeps_its_memory() -> None:
    site = Site()
    b, a = update(1, {"m.lora_B": (12, 5)}), update(2, {"m.lora_A": (5, 12)})
    site.play(1, b)
    first = dict(site.kept)
    site.play(2, a)
    assert set(site.kept) == {"m.lora_A", "m.lora_B"}
    assert (site.kept["m.lora_B"] == first["m.lora_B"]).all()
    third = site.play(3, {name: np.zeros_like(value) for name, value in b.items()})
    late = encode({"m.lora_B": first["m.lora_B"]}, SPEC, seeded_uniform(1, "site-1/rounding", 3))
    assert bytes_of(third) == bytes_of(late)


def test_what_was_kept_before_is_not_changed() -> None:
    before = update(7)
    copy = {name: value.copy() for name, value in before.items()}
    encode_with_memory(before, update(1), SPEC, seeded_uniform(1, "s", 1))
    assert all((before[name] == copy[name]).all() for name in copy)


def test_an_update_that_is_not_finite_is_refused() -> None:
    with pytest.raises(TrainingError):
        Site().play(1, {"head.bias": np.full(9, np.nan, dtype=np.float32)})
