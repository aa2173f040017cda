"""The last door. Nothing leaves a site except what these functions return.

======================  =========================================================================
what leaves             what it is a function of
======================  =========================================================================
update                  clipped, noised gradients (with a privacy plan), paid for in the ledger; masked, if the run is
receipt                 a note of the site to itself under its own key; unreadable to anybody else
refusal code            one word of a fixed list; never the text of an error, never a function of records, but for a
                        round that was paid for and gave nothing to send: one word, sealed like an update
hello                   the site's name and the software's version
steps of a secure sum   keys, sealed shares, signatures: random numbers, and what the server said; no record
noised scores           held-out records, with noise, paid for in the ledger
exact scores            held-out records, outside of epsilon: only if the policy says ``exact``
======================  =========================================================================

With the privacy unit ``site`` the update is clipped and not noised: the noise is the server's, which is trusted.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import RecordDict
from safetensors.numpy import load, save

from client.site import Site
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.codec_spec import CodecSpec
from llmchain_fl.core.errors import CODES, LlmchainError, PrivacyError, TrainingError
from llmchain_fl.core.messages import HelloReply, SecureReply, TrainTask
from llmchain_fl.core.plugins import Named
from llmchain_fl.core.printable import printable
from llmchain_fl.core.privacy.charges import at_site, training_charges
from llmchain_fl.core.privacy.noise import Uniform
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.privacy.release import Ledger, Release
from llmchain_fl.core.wire import write_hello, write_refusal, write_scores, write_secure_reply, write_update

if TYPE_CHECKING:
    from llmchain_fl.core.score_task import ScoreTask

PACKAGES = ("client", "llmchain_fl")
REFUSED = b'{"refused":'
"""How a sealed refusal begins; no file of arrays does (it would have a header of 10**18 bytes)."""
Blobs = dict[str, Any]
ENCODE: Named[Callable[[Arrays, CodecSpec, Uniform], Blobs]] = Named(
    {"encode": "llmchain_fl.core.compression.update:encode"}
)
REMEMBER: Named[Callable[[Arrays, Arrays, CodecSpec, Uniform], tuple[Blobs, Arrays]]] = Named(
    {"encode": "llmchain_fl.core.compression.error_feedback:encode_with_memory"}
)
"""How an update is made small, the second with what earlier rounds left out; imported when a task names a codec."""


def training_release(site: Site, task: TrainTask, plan: PrivacyPlan) -> Release:
    """What a round costs at this site, and whom."""
    counted = plan.counted(site.secure.counted_peers, site.listed)
    groups = training_charges(plan, task.stage_name, task.earlier, counted)
    charges = at_site(groups, site.data_set, site.named(plan.unit))
    return Release(task.key, charges, plan.digest(), "training", task.federation, task.stage_name)


@dataclass(frozen=True)
class Packing:
    """How an update is made small: after the noise, so it is post-processing.

    ``draw``: uniforms for the rounding; ``left_out``: what this site remembers that earlier rounds left out.
    """

    codec: CodecSpec
    draw: Uniform
    left_out: Arrays


CLIP: Named[Callable[[Arrays, float], Arrays]] = Named({"site": "client.whole_update:clipped"})
"""The bound on what one site adds; imported where a site is the privacy unit."""


def delta(task: TrainTask, trained: Arrays) -> Arrays:
    """Trained minus received."""
    return {name: (value - task.arrays[name]).astype(np.float32) for name, value in trained.items()}


def bounded(task: TrainTask, plan: PrivacyPlan | None, update: Arrays) -> Arrays:
    """The update, clipped as a whole with the privacy unit ``site``."""
    return CLIP["site"](update, task.clip or plan.clip_norm) if plan is not None and plan.unit == "site" else update


def packed(update: Arrays, packing: Packing) -> tuple[Mapping[str, Any], Arrays]:
    """(the arrays that travel: the delta itself, or one array of bytes for each of it; what is left out for later)."""
    codec = packing.codec
    if codec.name == "none":
        return update, {}
    if not codec.feedback:
        return ENCODE["encode"](update, codec, packing.draw), {}
    return REMEMBER["encode"](packing.left_out, update, codec, packing.draw)


def payload(leaving: Mapping[str, Any]) -> bytes:
    """The bytes that are sealed."""
    packed_arrays: bytes = save({name: np.ascontiguousarray(value) for name, value in leaving.items()})
    return packed_arrays


def release(ledger: Ledger, task: TrainTask, plan: PrivacyPlan | None, leaving: Mapping[str, Any]) -> RecordDict:
    """The update, sealed on the site's disk before it may leave (with privacy on)."""
    if plan is None:
        return write_update(task.round, leaving)
    ledger.seal(task.key, payload(leaving))
    return write_update(task.round, leaving, ledger.receipt())


def release_refusal(ledger: Ledger, task: TrainTask | ScoreTask) -> RecordDict:
    """That something went wrong after the round was paid, sealed: this round never gets another answer.

    Whatever it was, the word is the same: it may depend on records.
    """
    ledger.seal(task.key, REFUSED + json.dumps(TrainingError.code).encode() + b"}")
    return write_refusal(TrainingError.code)


def release_again(ledger: Ledger, task: TrainTask, sealed: bytes) -> RecordDict:
    """What was sealed for this very round, byte for byte: no second release, no second cost."""
    if sealed.startswith(REFUSED):
        return _refusal_again(sealed)
    return write_update(task.round, load(sealed), ledger.receipt())


def noised_scores(ledger: Ledger, task: ScoreTask, values: dict[str, float]) -> RecordDict:
    """Scores with noise in them, sealed before they may leave."""
    ledger.seal(task.key, json.dumps(values, sort_keys=True).encode())
    return write_scores(task.round, values, ledger.receipt())


def noised_scores_again(ledger: Ledger, task: ScoreTask, payload: bytes) -> RecordDict:
    """The scores that were sealed for this very round."""
    if payload.startswith(REFUSED):
        return _refusal_again(payload)
    return write_scores(task.round, json.loads(payload), ledger.receipt())


def _refusal_again(sealed: bytes) -> RecordDict:
    return write_refusal(str(json.loads(sealed)["refused"]))


def describe(error: Exception) -> str:
    """What the site's log may say about ``error``: our own words, or type and innermost place in our code."""
    if isinstance(error, LlmchainError):
        return "\n".join(map(printable, f"{error.code}: {error}".split("\n")))
    places = [
        f"{'/'.join(Path(frame.f_code.co_filename).parts[-2:])}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] in PACKAGES
    ]
    return f"{type(error).__name__} at {places[-1] if places else 'an unknown place'}"


def refuse(error: BaseException) -> RecordDict:
    """A code for an error of ours, ``error`` for any other. The text stays at the site."""
    code = error.code if isinstance(error, LlmchainError) else LlmchainError.code
    return write_refusal(code if code in CODES else LlmchainError.code)


def hello(site: Site) -> RecordDict:
    """Who is there."""
    return write_hello(HelloReply(site.name))


def secure_step(reply: SecureReply) -> RecordDict:
    """One step of a secure sum beside training (``client/secure_sum.py``)."""
    return write_secure_reply(reply)


def scores(site: Site, number: int, values: dict[str, float]) -> RecordDict:
    """Exact scores on private records, if the policy shares them.

    Raises:
        PrivacyError: it does not.
    """
    if site.limits.scores != "exact":
        raise PrivacyError("the site shares no exact scores", remedy='set limits.scores = "exact"')
    return write_scores(number, values)
