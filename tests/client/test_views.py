"""Views of a round against payments for it: what an attempt that was never sealed left, no later round may use."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import client.app
from client.rounds import Between
from client.site import SiteLimits
from llmchain_fl.core.adapter.digest import digest
from llmchain_fl.core.codec_spec import CodecSpec
from llmchain_fl.core.privacy.ledger import FileLedger
from llmchain_fl.core.work import GuardSpec
from llmchain_fl.replies import Refusal, Update, read_reply

BOTH = ("lora_A", "lora_B")
ANCHOR = GuardSpec("anchor", (("strength", 1e6),))


def work_of(ward: Any, *, rank: int = 2, feedback: bool = False, guards: tuple[GuardSpec, ...] = ()) -> Any:
    made = ward.work(trained=BOTH, rank=rank, train={"steps": 1, "sampling_rate": 1.0}, plan={"noise_multiplier": 20.0})
    return replace(made, guards=guards, codec=CodecSpec("top-k", share=0.5, feedback=feedback))


def sent(ward: Any, work: Any, **changes: Any) -> Any:
    return read_reply(ward.train(work, lr=1e-6 if work.guards else 0.1, **changes))


@pytest.fixture(autouse=True)
def records(ward: Any) -> None:
    ward.limits = SiteLimits(epsilon=6000.0, units=["record"])


def test_a_codec_that_cannot_remember_is_found_before_anything_is_paid_or_kept(ward: Any) -> None:
    """The attack: round 2 fails after training, its factor is read through round 3's guard, round 2 is asked again."""
    assert isinstance(sent(ward, work_of(ward, rank=3, feedback=True)), Update)
    attack = work_of(ward, feedback=True)
    before = ward.events()
    assert sent(ward, attack, round=2, keeps=("lora_A",)) == Refusal("run")
    assert ward.events() == before
    assert ward.site.memory("run-1").read() is None


def test_a_factor_of_an_unsealed_attempt_is_not_what_the_next_round_starts_from(
    ward: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read through an anchor of endless strength, as a server would: B follows from A alone."""
    work, guarded = work_of(ward), work_of(ward, guards=(ANCHOR,))
    with monkeypatch.context() as patch:
        patch.setattr(FileLedger, "seal", lambda *_: 1 / 0)
        assert sent(ward, work, round=2, keeps=("lora_A",)) == Refusal("error")
    lost = ward.site.memory("run-1").read()
    assert lost is not None
    module = next(iter(lost.after)).removesuffix(".lora_A")
    width = lost.after[f"{module}.lora_A"].shape[1]
    payload = {f"anchor.{module}.lora_{x}": np.eye(width, dtype=np.float32) for x in "AB"}
    update = sent(ward, guarded, round=3, keeps=("lora_A",), guard_arrays=payload)
    assert isinstance(update, Update)
    kept = ward.site.memory("run-1").read()
    assert kept is not None
    assert kept.before == {}
    assert digest(kept.after) != digest(lost.after)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.sampled_from(["seal", "seal", "die", "refuse"]), st.booleans()),
        min_size=2,
        max_size=6,
    )
)
def test_a_round_starts_from_what_sealed_rounds_left_and_from_nothing_else(
    ward: Any, course: list[tuple[int, str, bool]]
) -> None:
    """Over courses in which attempts die before the seal, fail after paying, and rounds come back in any order."""
    work, run = work_of(ward, feedback=True), f"run-{uuid.uuid4().hex}"
    good: list[str] = [digest({})]
    sealed, paid = set[int](), set[int]()
    newest = 0
    starts: list[Any] = []
    plain = client.app.play_round

    def spied(*told: Any) -> Any:
        starts.append(next(value for value in told if isinstance(value, Between)))
        return plain(*told)

    for number, end, restart in course:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(client.app, "play_round", spied)
            if end == "die":
                patch.setattr(FileLedger, "seal", lambda *_: 1 / 0)
            if end == "refuse":
                patch.setattr("client.outbox.payload", lambda *_: 1 / 0)
            before = len(starts)
            sent(ward, work, run=run, round=number, keeps=("lora_A",))
        if number in sealed or number < newest:
            assert len(starts) == before  # sealed bytes go out again; an older round that was never sealed is refused
            continue
        newest = number
        paid.add(number)
        assert len(starts) == before + 1
        assert digest(starts[-1].personal) in good
        assert digest(starts[-1].left_out) in good
        if end != "die":
            sealed.add(number)
        if end == "seal":
            for purpose in ("personal", "feedback"):
                left = ward.site.memory(run, purpose).read()
                assert left is not None
                good.append(digest(left.after))
        if restart:
            ward.restart()
    keys = [
        event["key"] for event in ward.events() if event["type"] == "reserve" and event["key"].startswith(f"{run}/")
    ]
    assert len(keys) == len(set(keys)) == len(paid)
