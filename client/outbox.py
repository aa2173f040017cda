"""The last door. Nothing leaves a site except what these functions return.

======================  =========================================================================
what leaves             what it is a function of
======================  =========================================================================
update                  clipped, noised gradients (with a privacy plan), so covered by the ledger
refusal code            one word of a fixed list; never the text of an error
hello                   the site's name and the software's version
scores                  private records: only where the site's policy says ``share_scores``
======================  =========================================================================
"""

from __future__ import annotations

import numpy as np
from flwr.app import RecordDict
from safetensors.numpy import load, save

from client.site import Site
from llmchain_fl.adapter.value import Arrays
from llmchain_fl.errors import CODES, LlmchainError, PrivacyError
from llmchain_fl.privacy.accounting import round_event
from llmchain_fl.privacy.ledger import Ledger
from llmchain_fl.wire import HelloReply, TrainTask, write_hello, write_refusal, write_scores, write_update
from llmchain_fl.work import WorkSpec


def sealed(ledger: Ledger, task: TrainTask, work: WorkSpec) -> bytes | None:
    """The update that was already sealed for this very round, if there is one."""
    return None if work.plan is None else ledger.sealed(task.key)


def reserve(ledger: Ledger, task: TrainTask, work: WorkSpec) -> None:
    """Book the round before training begins: can it still be afforded?

    Records may have been read by then (a file that is missing costs nothing), but nothing was computed from them.

    Raises:
        BudgetExhausted: the round would pass the site's epsilon; nothing was spent.
    """
    if work.plan is not None:
        ledger.reserve(task.key, round_event(work.plan), work.plan.digest())


def release(ledger: Ledger, task: TrainTask, work: WorkSpec, trained: Arrays) -> RecordDict:
    """Trained minus received, sealed on the site's disk before it may leave (with privacy on)."""
    delta = {name: (value - task.arrays[name]).astype(np.float32) for name, value in trained.items()}
    if work.plan is not None:
        ledger.seal(task.key, save(delta))
    return write_update(task.round, delta)


def release_again(task: TrainTask, sealed: bytes) -> RecordDict:
    """The update that was sealed for this very round, byte for byte: no second release, no second cost."""
    return write_update(task.round, load(sealed))


def refuse(error: BaseException) -> RecordDict:
    """A code for an error of ours, ``error`` for any other. The text stays at the site."""
    code = error.code if isinstance(error, LlmchainError) else LlmchainError.code
    return write_refusal(code if code in CODES else LlmchainError.code)


def hello(site: Site) -> RecordDict:
    """Who is there."""
    return write_hello(HelloReply(site.name))


def check_scores(site: Site) -> None:
    """Asked before anything is scored.

    Raises:
        PrivacyError: the policy does not share scores.
    """
    if not site.limits.share_scores:
        raise PrivacyError("the site does not share scores", remedy="set limits.share_scores = true")


def scores(site: Site, number: int, values: dict[str, float]) -> RecordDict:
    """Scores on private records, if the policy shares them.

    Raises:
        PrivacyError: it does not.
    """
    check_scores(site)
    return write_scores(number, values)
