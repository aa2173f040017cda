"""Compressed updates at a site's door: what is sealed is what travels, and a memory survives a crash at any point."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from client import whole_update
from client.memory import Kept
from client.site import SiteLimits
from llmchain_fl.core.codec_spec import CodecSpec
from llmchain_fl.core.compression import update as codec_update
from llmchain_fl.core.compression.update import decode
from llmchain_fl.core.privacy.ledger import FileLedger
from llmchain_fl.replies import Refusal, Update, read_reply

MEMORY = CodecSpec("top-k", share=0.1, feedback=True)


def work_of(ward: Any, codec: CodecSpec, private: bool = True) -> Any:
    return replace(ward.work(private=private), codec=codec)


def update_of(ward: Any, work: Any, number: int) -> Update:
    reply = read_reply(ward.train(work, round=number))
    assert isinstance(reply, Update), reply
    return reply


def bytes_of(update: Update) -> dict[str, bytes]:
    return {name: np.asarray(value).tobytes() for name, value in update.arrays.items()}


def memory_of(ward: Any) -> Kept:
    found = ward.site.memory("run-1", "feedback").read()
    assert found is not None
    return found


def equal(first: Any, second: Any) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("codec", [CodecSpec("int4"), CodecSpec("bf16"), MEMORY])
def test_what_is_sealed_is_the_packed_update_and_a_restarted_site_sends_it_again(ward: Any, codec: CodecSpec) -> None:
    work = work_of(ward, codec)
    first = update_of(ward, work, 1)
    assert {np.asarray(value).dtype for value in first.arrays.values()} == {np.dtype(np.uint8)}
    sealed = ward.site.open_ledger("record").sealed("run-1/1")
    assert sealed == save({name: np.asarray(value) for name, value in first.arrays.items()})
    ward.restart()
    assert bytes_of(update_of(ward, work, 1)) == bytes_of(first)
    assert ward.booked().count("reserve") == ward.booked().count("seal") == 1


def test_a_packed_update_is_the_update_but_for_the_rounding(ward: Any) -> None:
    ward.limits = SiteLimits(require_privacy=False)
    plain = update_of(ward, work_of(ward, CodecSpec(), private=False), 1)
    packed = update_of(ward, work_of(ward, CodecSpec("int8"), private=False), 1)
    shapes = {name: np.asarray(value).shape for name, value in plain.arrays.items()}
    found = decode(packed.arrays, shapes, CodecSpec("int8"))
    for name, value in plain.arrays.items():
        exact = np.asarray(value)
        assert np.abs(found[name] - exact).max() <= np.abs(exact).max() / 127 * (1 + 2.0**-7)


def test_a_site_that_dies_before_the_seal_starts_again_from_the_old_memory(
    ward: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = work_of(ward, MEMORY)
    update_of(ward, work, 1)
    first = memory_of(ward)
    with monkeypatch.context() as patched:
        patched.setattr(FileLedger, "seal", lambda *told: (_ for _ in ()).throw(RuntimeError("dies here")))
        assert isinstance(read_reply(ward.train(work, round=2)), Refusal)
    lost = memory_of(ward)
    assert lost.round == 2
    ward.restart()
    update_of(ward, work, 2)
    assert equal(memory_of(ward).before, first.after)
    assert not equal(memory_of(ward).after, lost.after)


def test_noise_of_a_round_that_was_never_sealed_is_in_no_later_round(
    ward: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = work_of(ward, MEMORY)
    update_of(ward, work, 1)
    first = memory_of(ward)
    with monkeypatch.context() as patched:
        patched.setattr(FileLedger, "seal", lambda *told: (_ for _ in ()).throw(RuntimeError("dies here")))
        ward.train(work, round=2)
    update_of(ward, work, 3)
    assert equal(memory_of(ward).before, first.after)


def test_a_clipped_update_is_packed_after_the_clip(ward: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    for place, name in ((whole_update, "clipped"), (codec_update, "encode")):
        real = getattr(place, name)
        monkeypatch.setattr(place, name, lambda *told, name=name, real=real: (order.append(name), real(*told))[1])
    made = ward.work(plan={"unit": "site", "sampling_rate": 1.0, "steps_per_round": 1, "divisor": 2.0})
    update_of(ward, replace(made, codec=CodecSpec("int8")), 1)
    assert order[-2:] == ["clipped", "encode"]  # the trial before it packed a made-up update
