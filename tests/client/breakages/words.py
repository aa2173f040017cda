"""Broken here: what a site says and refuses: replies, refusals, policy, log.

Each fault is done to the real code; ``test_gate_breakages.py`` tries them all.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from client import app, check, dataset, outbox, rounds, scores, trial
from client.local import train_round
from llmchain_fl.core.errors import DataError, PrivacyError
from llmchain_fl.core.privacy.ledger import FileLedger
from llmchain_fl.core.privacy.noise import SecureNoise

Patch = pytest.MonkeyPatch
Break = Callable[[Patch], None]
REAL_ADDED = SecureNoise.added
REAL_TRAIN = train_round
REAL_RESERVE = FileLedger.reserve
REAL_UPDATE = outbox.write_update
REAL_RELEASE = outbox.release


def real(self: SecureNoise, values: torch.Tensor, std: float) -> torch.Tensor:
    """Good noise alone."""
    return REAL_ADDED(self, torch.zeros_like(values), std)


def counting(patch: Patch) -> list[int]:
    """The records of the last round, as they are counted."""
    last = [0]

    def train(*told: Any) -> Any:
        result = REAL_TRAIN(*told)
        last[0] = result.records
        return result

    patch.setattr(rounds, "loop_of", {**rounds.LOOPS, "local": train}.__getitem__)
    return last


def count_in_the_config(patch: Patch) -> None:
    last = counting(patch)

    def write(number: int, arrays: Any, receipt: str = "") -> Any:
        reply = REAL_UPDATE(number, arrays, receipt)
        reply["config"]["n"] = last[0]
        return reply

    patch.setattr(outbox, "write_update", write)


def count_in_low_digits(patch: Patch) -> None:
    last = counting(patch)

    def release(ledger: Any, task: Any, plan: Any, leaving: Any) -> Any:
        told = {name: value.copy() for name, value in leaving.items()}
        first = told[min(told)]
        first.flat[0] = np.float32(np.round(first.flat[0], 2) + (last[0] % 1000) * 1e-6)
        return REAL_RELEASE(ledger, task, plan, told)

    patch.setattr(outbox, "release", release)


def unusable_share_in_the_reply(patch: Patch) -> None:
    def train(*told: Any) -> Any:
        result = REAL_TRAIN(*told)
        shares[0] = result.unusable
        return result

    shares = [0.0]
    patch.setattr(rounds, "loop_of", {**rounds.LOOPS, "local": train}.__getitem__)

    def write(number: int, arrays: Any, receipt: str = "") -> Any:
        reply = REAL_UPDATE(number, arrays, receipt)
        if shares[0] > 0:
            reply["config"]["version"] = f"{reply['config']['version']}+{shares[0]:.2f}"
        return reply

    patch.setattr(outbox, "write_update", write)


def behind_the_arrays(patch: Patch) -> None:
    """A number in the table of the arrays, where the format has a place for words."""
    last = counting(patch)

    def write(number: int, arrays: Any, receipt: str = "") -> Any:
        reply = REAL_UPDATE(number, arrays, receipt)
        (packed,) = reply["arrays"].values()
        packed.data = save(dict(arrays), {"n": str(last[0])})
        return reply

    patch.setattr(outbox, "write_update", write)


def receipt_of_the_length(patch: Patch) -> None:
    """A receipt that grows with the ledger."""
    real = FileLedger.receipt

    def receipt(self: Any) -> str:
        return real(self) + "A" * (len(self.spent().events) % 4)

    patch.setattr(FileLedger, "receipt", receipt)


def chatty_hello(patch: Patch) -> None:
    real = outbox.hello

    def hello(site: Any) -> Any:
        reply = real(site)
        reply["config"]["stages"] = sum(1 for _ in Path(site.data.train).parent.glob("*.jsonl"))
        return reply

    patch.setattr(outbox, "hello", hello)


def labels_refused(patch: Patch) -> None:
    """A record whose label is not in the list is an error of the whole site."""

    real = dataset.only_labels

    def only(rows: Any, known: Any) -> Any:
        kept, left = real(rows, known)
        if left.total:
            raise DataError("a label that is not in the list", remedy="")
        return kept, left

    patch.setattr(dataset, "only_labels", only)


def nobody_is_refused(patch: Patch) -> None:
    """A site without a record that fits says so."""

    real = dataset._read

    def read(*told: Any) -> Any:
        found = real(*told)
        if not len(found.units):
            raise DataError("no record", remedy="")
        return found

    patch.setattr(dataset, "_read", read)


def unusable_refused(patch: Patch) -> None:
    """A round in which somebody could not be computed is refused after it was paid."""

    def train(*told: Any) -> Any:
        result = REAL_TRAIN(*told)
        if result.unusable > 0 and len(told[1]) > 4:
            raise rounds.TrainingError("somebody could not be computed", remedy="")
        return result

    patch.setattr(rounds, "loop_of", {**rounds.LOOPS, "local": train}.__getitem__)


def no_trial(patch: Patch) -> None:
    patch.setattr(trial, "try_out", lambda *told: None)


def no_checks(patch: Patch) -> None:
    patch.setattr(app.check, "check_train", lambda *told: None)


def pays_first(patch: Patch) -> None:
    """The round is reserved before it is tried."""
    real = trial.try_out

    def afford(self: Any, release: Any) -> None:
        REAL_RESERVE(self, release)

    patch.setattr(FileLedger, "afford", afford)
    patch.setattr(trial, "try_out", real)


def check_without(*words: str) -> Break:
    """The check of the work passes over refusals that say one of ``words``."""
    real = check.check_work

    def checked(site: Any, work: Any) -> None:
        try:
            real(site, work)
        except PrivacyError as error:
            if not any(word in str(error) for word in words):
                raise

    return lambda patch: patch.setattr(check, "check_work", checked)


def scores_for_everybody(patch: Patch) -> None:
    real = scores.check_scores

    def allowed(site: Any, plan: Any) -> str:
        return "noised" if site.limits.scores == "none" else real(site, plan)

    patch.setattr(scores, "check_scores", allowed)


def exact_scores(patch: Patch) -> None:
    patch.setattr(scores, "check_scores", lambda site, plan: "exact")
    patch.setattr(app.outbox, "scores", lambda site, number, values: outbox.write_scores(number, values))


def log_quotes(patch: Patch) -> None:
    """The log of a site gets the text of a foreign exception, and what a record holds."""

    real = dataset._tell

    def tell(site: Any, rows: Any, left: Any) -> None:
        real(site, rows, left)
        for row in rows.records:
            dataset.log.warning("read %s", row.get("text", ""))

    patch.setattr(dataset, "_tell", tell)


BREAKAGES: dict[str, tuple[Break, str, str]] = {
    "a count in the reply's config": (count_in_the_config, "own noise: unit record", "replies (unit record)"),
    "a count in the low digits of a number": (count_in_low_digits, "own noise: sgd", "digits below the grid (sgd)"),
    "a count behind an array": (behind_the_arrays, "own noise: unit record", "replies (unit record)"),
    "the unusable share in the version": (
        unusable_share_in_the_reply,
        "own people: overflowing",
        "replies (small, overflowing arrays)",
    ),
    "a receipt that grows": (receipt_of_the_length, "taking part", "replies (taking part)"),
    "a count in the hello": (chatty_hello, "refusals", "replies (refusals)"),
    "a label that is not listed refuses the task": (labels_refused, "refusals", "sites that answer a plain task"),
    "a site without records refuses": (nobody_is_refused, "refusals", "sites that answer a plain task"),
    "a record that cannot be computed refuses the round": (
        unusable_refused,
        "own people: ordinary",
        "others untouched (distilled, ordinary arrays)",
    ),
    "no trial before paying": (no_trial, "refusals", "paid for impossible tasks"),
    "no check of the task": (no_checks, "refusals", "impossible tasks that were done"),
    "privacy not required": (check_without("differential privacy only"), "policy", "work against the policy"),
    "any delta accepted": (check_without("is above the site's"), "policy", "work against the policy"),
    "scores for everybody": (scores_for_everybody, "policy", "work against the policy"),
    "exact scores": (exact_scores, "own scores", "scores on record (small)"),
    "the log quotes a record": (log_quotes, "policy", "records in the log"),
    "paid before the trial": (pays_first, "refusals", "paid for impossible tasks"),
}
"""what is broken -> how, the check that must find it, the finding that must say so."""
MISSED = (
    "a count in the hello",
    "privacy not required",
    "any delta accepted",
    "scores for everybody",
    "the log quotes a record",
)
"""What no check found when the list was first tried."""
