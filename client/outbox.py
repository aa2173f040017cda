"""The last door. Nothing leaves a site except what these functions return.

======================  =========================================================================
what leaves             what it is a function of
======================  =========================================================================
update                  clipped, noised gradients (with a privacy plan), paid for in the ledger
receipt                 a note of the site to itself under its own key; unreadable to anybody else
refusal code            one word of a fixed list; never the text of an error
hello                   the site's name and the software's version
noised scores           held-out records, with noise, paid for in the ledger
exact scores            held-out records, outside of epsilon: only if the policy says ``exact``
======================  =========================================================================

With the privacy unit ``site`` the update is clipped and not noised: the noise is the server's, which is trusted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import RecordDict
from safetensors.numpy import load, save

from client.site import Site
from llmchain_fl.adapter.value import Arrays
from llmchain_fl.compression.codec import CodecSpec, Draw
from llmchain_fl.compression.error_feedback import encode_with_memory, memory_file
from llmchain_fl.compression.update import encode
from llmchain_fl.errors import CODES, LlmchainError, PrivacyError
from llmchain_fl.messages import HelloReply, ScoreTask, TrainTask
from llmchain_fl.privacy.charges import score_charge, training_charges
from llmchain_fl.privacy.ledger import Ledger, Release
from llmchain_fl.privacy.plan import PrivacyPlan
from llmchain_fl.wire import write_hello, write_refusal, write_scores, write_update


def sealed(ledger: Ledger, task: TrainTask | ScoreTask, plan: PrivacyPlan | None) -> bytes | None:
    """What was already sealed for this very round, if anything."""
    return None if plan is None else ledger.sealed(task.key)


def reserve(ledger: Ledger, task: TrainTask, plan: PrivacyPlan | None) -> None:
    """Book the round before training begins: can it still be afforded?

    Records may have been read by then (a file that is missing costs nothing), but nothing was computed from them.

    Raises:
        BudgetExhausted: the round would pass the site's epsilon; nothing was spent.
    """
    if plan is not None:
        charges = training_charges(plan, task.stage_name, task.earlier)
        ledger.reserve(Release(task.key, charges, plan.digest(), "training", task.federation, task.stage_name))


@dataclass(frozen=True)
class Packing:
    """How an update is made small: after the noise, so it is post-processing.

    ``draw``: uniforms for the rounding; ``memory``: where this site remembers what a run's compression left out.
    """

    codec: CodecSpec
    draw: Draw
    memory: Path


def release(
    ledger: Ledger, task: TrainTask, plan: PrivacyPlan | None, trained: Arrays, packing: Packing | None = None
) -> RecordDict:
    """Trained minus received, packed, and sealed on the site's disk before it may leave (with privacy on)."""
    delta = {name: (value - task.arrays[name]).astype(np.float32) for name, value in trained.items()}
    if plan is not None and plan.unit == "site":
        delta = clipped(delta, task.clip or plan.clip_norm)
    leaving = packed(ledger, task, plan, delta, packing)
    if plan is None:
        return write_update(task.round, leaving)
    ledger.seal(task.key, save(leaving))
    return write_update(task.round, leaving, ledger.receipt())


def packed(
    ledger: Ledger, task: TrainTask, plan: PrivacyPlan | None, delta: Arrays, packing: Packing | None
) -> Mapping[str, Any]:
    """The arrays that travel: the delta itself, or one array of bytes for each of it."""
    if packing is None or packing.codec.name == "none":
        return delta
    if not packing.codec.feedback:
        return encode(delta, packing.codec, packing.draw)
    seals = None if plan is None else lambda number: ledger.sealed(task.key_of(number))
    file = memory_file(packing.memory, task.run)
    return encode_with_memory(file, task.round, delta, packing.codec, packing.draw, seals)


def release_again(ledger: Ledger, task: TrainTask, payload: bytes) -> RecordDict:
    """The update that was sealed for this very round, byte for byte: no second release, no second cost."""
    return write_update(task.round, load(payload), ledger.receipt())


def clipped(delta: Arrays, clip_norm: float) -> Arrays:
    """A whole update at L2 norm <= C (1 + 1e-6): the bound on what one site adds (unit ``site``).

    ==============================  ==========================
    update                          result
    ==============================  ==========================
    norm <= C                       itself
    norm > C                        scaled by C / norm
    a number that is not finite     zeros
    ==============================  ==========================

    Raises:
        PrivacyError: C is not finite or not above 0: that would be no bound.
    """
    if not (math.isfinite(clip_norm) and clip_norm > 0):
        raise PrivacyError(f"the clip norm is {clip_norm!r}", remedy="the server must send one above 0, and finite")
    norm = math.sqrt(sum(float(np.square(value, dtype=np.float64).sum()) for value in delta.values()))
    if not math.isfinite(norm):
        return {name: np.zeros_like(value) for name, value in delta.items()}
    factor = clip_norm / norm if norm > clip_norm else 1.0
    return {name: (value * factor).astype(np.float32) for name, value in delta.items()} if factor < 1 else delta


def reserve_scores(ledger: Ledger, task: ScoreTask, plan: PrivacyPlan) -> None:
    """Book one noised score for each stage asked for, whether or not the site has records of it: a public number.

    Raises:
        BudgetExhausted: they would pass the site's epsilon; nothing was spent.
    """
    charge = score_charge(plan, len(task.stages))
    ledger.reserve(Release(task.key, (charge,), plan.digest(), "scores", task.federation, task.stages[-1]))


def noised_scores(ledger: Ledger, task: ScoreTask, values: dict[str, float]) -> RecordDict:
    """Scores with noise in them, sealed before they may leave."""
    ledger.seal(task.key, json.dumps(values, sort_keys=True).encode())
    return write_scores(task.round, values, ledger.receipt())


def noised_scores_again(ledger: Ledger, task: ScoreTask, payload: bytes) -> RecordDict:
    """The scores that were sealed for this very round."""
    return write_scores(task.round, json.loads(payload), ledger.receipt())


def refuse(error: BaseException) -> RecordDict:
    """A code for an error of ours, ``error`` for any other. The text stays at the site."""
    code = error.code if isinstance(error, LlmchainError) else LlmchainError.code
    return write_refusal(code if code in CODES else LlmchainError.code)


def hello(site: Site) -> RecordDict:
    """Who is there."""
    return write_hello(HelloReply(site.name))


def check_scores(site: Site, plan: PrivacyPlan | None) -> str:
    """How the site shares scores: ``noised`` or ``exact``. Asked before anything is scored.

    Raises:
        PrivacyError: it does not share them, or the run's plan does not pay for noised ones.
    """
    kind = site.limits.scores
    if kind == "none":
        raise PrivacyError("the site does not share scores", remedy='set limits.scores = "noised"')
    if kind == "noised" and (plan is None or not plan.score_noise):
        raise PrivacyError("the site shares noised scores only", remedy="run with privacy on and sites.held_out > 0")
    if kind == "noised" and site.data.one_record_per_person:
        raise PrivacyError(
            "persons kept for scores cannot be told from those trained on where the records name no person",
            remedy='name a column for the person, or set limits.scores = "none"',
        )
    return kind


def scores(site: Site, number: int, values: dict[str, float]) -> RecordDict:
    """Exact scores on private records, if the policy shares them.

    Raises:
        PrivacyError: it does not.
    """
    if site.limits.scores != "exact":
        raise PrivacyError("the site shares no exact scores", remedy='set limits.scores = "exact"')
    return write_scores(number, values)
