"""Each way to break what a site books, keeps, says and refuses is found by the check made for it.

See ``test_gate_breakages.py``.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client import app, check, memory, outbox, rounds, trial
from client.audit.gate import EFFORTS, run_check
from llmchain_fl.errors import DataError, PrivacyError
from llmchain_fl.privacy import accounting, entry, register, store, totals
from llmchain_fl.privacy import ledger as ledger_module
from llmchain_fl.privacy.ledger import FileLedger
from llmchain_fl.privacy.store import Store

Patch = pytest.MonkeyPatch
Break = Callable[[Patch], None]
REAL_TRAIN, REAL_CHARGES, REAL_SCORE_CHARGE = rounds.train_round, outbox.training_charges, outbox.score_charge
REAL_RESERVE, REAL_SEAL, REAL_SEALED = FileLedger.reserve, FileLedger.seal, FileLedger.sealed
REAL_UPDATE, REAL_RELEASE, REAL_COMPOSED = outbox.write_update, outbox.release, accounting._composed


def everybody(people: Any) -> list[Any]:
    return [np.ones(len(names), dtype=bool) for _, names in people]


# -- what is booked ---------------------------------------------------------------------------------------------------


def every_other_round_unrecorded(patch: Patch) -> None:
    def odd(key: str) -> bool:
        return int(key.rsplit("/", 1)[1]) % 2 == 1

    def reserve(self: Any, release: Any, people: Any = ()) -> Any:
        return REAL_RESERVE(self, release, people) if odd(release.key) else everybody(people)

    patch.setattr(FileLedger, "reserve", reserve)
    patch.setattr(FileLedger, "seal", lambda self, key, data: REAL_SEAL(self, key, data) if odd(key) else None)


def paid_afterwards(patch: Patch) -> None:
    late: list[Any] = []

    def reserve(self: Any, release: Any, people: Any = ()) -> Any:
        late.append((self, release, people))
        return everybody(people)

    def train(*told: Any) -> Any:
        result = REAL_TRAIN(*told)
        if late:
            REAL_RESERVE(*late.pop())
        return result

    patch.setattr(FileLedger, "reserve", reserve)
    patch.setattr(rounds, "train_round", train)


def booked_too_cheap(patch: Patch) -> None:
    def cheap(plan: Any, *rest: Any) -> Any:
        return REAL_CHARGES(replace(plan, noise_multiplier=2 * plan.noise_multiplier), *rest)

    patch.setattr(outbox, "training_charges", cheap)


def only_the_present_stage_pays(patch: Patch) -> None:
    patch.setattr(outbox, "training_charges", lambda plan, stage, earlier=(): REAL_CHARGES(plan, stage))
    patch.setattr(rounds, "_allowed", lambda site, ledger, release, parts: _paid(ledger, release, parts))


def _paid(ledger: Any, release: Any, parts: Any) -> Any:
    groups = {charge.group for charge in release.charges}
    ledger.reserve(release, [(p.group, p.records.names) for p in parts if p.group in groups and p.records.names])
    return [np.ones(len(part.records.units), dtype=bool) for part in parts]


def never_asked(patch: Patch) -> None:
    """The site pays, enters nobody, and lets everybody take part."""

    def allowed(site: Any, ledger: Any, release: Any, parts: Any) -> Any:
        ledger.reserve(release)
        return [np.ones(len(part.records.units), dtype=bool) for part in parts]

    patch.setattr(rounds, "_allowed", allowed)


def in_every_group(patch: Patch) -> None:
    for module in (register, entry):
        patch.setattr(module, "excluded", lambda profile, group: False)


def sealed_rounds_trained_again(patch: Patch) -> None:
    seen: set[str] = set()

    def reserve(self: Any, release: Any, people: Any = ()) -> Any:
        return everybody(people) if release.key in seen else REAL_RESERVE(self, release, people)

    patch.setattr(FileLedger, "reserve", reserve)
    patch.setattr(FileLedger, "afford", lambda self, release: None)
    patch.setattr(FileLedger, "seal", lambda self, key, payload: seen.add(key))
    patch.setattr(FileLedger, "sealed", lambda self, key: None)


def nobody_is_left_out_for_the_budget(patch: Patch) -> None:
    patch.setattr(totals.Totals, "fits", lambda self, profile: True)


def left_out_is_refused(patch: Patch) -> None:
    """A release is refused if somebody may not take part in it."""

    def reserve(self: Any, release: Any, people: Any = ()) -> Any:
        masks = REAL_RESERVE(self, release, people)
        if any(not mask.all() for mask in masks):
            raise PrivacyError("too much for somebody", remedy="")
        return masks

    patch.setattr(FileLedger, "reserve", reserve)


def merge_drops(patch: Patch) -> None:
    for module in (accounting, totals):
        patch.setattr(module, "merge", lambda events: tuple(dict.fromkeys(events)))


def half_epsilon(patch: Patch) -> None:
    patch.setattr(accounting, "_composed", lambda *told: REAL_COMPOSED(*told) / 2)


def smallest_group(patch: Patch) -> None:
    def smallest(groups: Any, delta: float, accountant: str = "pld") -> float:
        return min([accounting.epsilon(events, delta, accountant) for events in groups.values()] or [0.0])

    patch.setattr(totals, "groups_epsilon", smallest)


def nameless_pay_for_themselves(patch: Patch) -> None:
    """What units without names pay is not added to the persons'."""
    real = totals.Totals.events

    def events(self: Any, profile: Any) -> Any:
        if not profile:
            return real(self, profile)
        kept = self._groups.pop("*", None)
        try:
            return real(self, profile)
        finally:
            if kept is not None:
                self._groups["*"] = kept

    patch.setattr(totals.Totals, "events", events)


def at_another_delta(patch: Patch) -> None:
    patch.setattr(accounting, "_composed", lambda events, delta, kind: REAL_COMPOSED(events, 20 * delta, kind))


# -- what is kept -----------------------------------------------------------------------------------------------------


def anchor_never_checked(patch: Patch) -> None:
    def verified(self: Any) -> Any:
        self._read_log()
        self._check_owner(self._book)
        return self._book

    patch.setattr(Store, "_verified", verified)


def trusted_without_a_seal(patch: Patch) -> None:
    patch.setattr(memory, "believed", lambda kept, number, seal_of: {} if kept is None else kept.after)


def trusted_by_its_round(patch: Patch) -> None:
    """A later round starts from what the one before left, sealed or not."""

    def believed(kept: Any, number: int, seal_of: Any) -> Any:
        return {} if kept is None or number < kept.round else kept.before if number == kept.round else kept.after

    patch.setattr(memory, "believed", believed)


def sealed_before_the_memory(patch: Patch) -> None:
    """Seal, then write the memory: what fails between them leaves a sent round that the memory does not know."""
    real = memory.Memory.keep
    waiting: list[Any] = []
    patch.setattr(memory.Memory, "keep", lambda self, *told: waiting.append((self, told)))

    def release(*told: Any) -> Any:
        reply = REAL_RELEASE(*told)
        while waiting:
            place, kept = waiting.pop()
            real(place, *kept)
        return reply

    patch.setattr(outbox, "release", release)


def open_memory(patch: Patch) -> None:
    real = memory.replace

    def write(path: Path, data: bytes) -> None:
        real(path, data)
        os.chmod(path, stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP)

    patch.setattr(memory, "replace", write)


def another_noise_on_resend(patch: Patch) -> None:
    def again(ledger: Any, task: Any, sealed: bytes) -> Any:
        from safetensors.numpy import load

        arrays = {n: v + np.random.default_rng().normal(size=v.shape).astype(v.dtype) for n, v in load(sealed).items()}
        return outbox.write_update(task.round, arrays, ledger.receipt())

    patch.setattr(outbox, "release_again", again)


def any_bytes_for_a_seal(patch: Patch) -> None:
    """What lies in the file is sent, whatever was sealed."""

    def sealed(self: Any, key: str) -> Any:
        file = self._file(key)
        return file.read_bytes() if file.exists() else None

    patch.setattr(FileLedger, "sealed", sealed)


# -- what is said -----------------------------------------------------------------------------------------------------


def counting(patch: Patch) -> list[int]:
    """The records of the last round, as they are counted."""
    last = [0]

    def train(*told: Any) -> Any:
        result = REAL_TRAIN(*told)
        last[0] = result.records
        return result

    patch.setattr(rounds, "train_round", train)
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
    patch.setattr(rounds, "train_round", train)

    def write(number: int, arrays: Any, receipt: str = "") -> Any:
        reply = REAL_UPDATE(number, arrays, receipt)
        if shares[0] > 0:
            reply["config"]["version"] = f"{reply['config']['version']}+{shares[0]:.2f}"
        return reply

    patch.setattr(outbox, "write_update", write)


def behind_the_arrays(patch: Patch) -> None:
    """Bytes after the end of an array."""
    last = counting(patch)

    def write(number: int, arrays: Any, receipt: str = "") -> Any:
        reply = REAL_UPDATE(number, arrays, receipt)
        for value in reply["arrays"].values():
            value.data += last[0].to_bytes(4, "little")
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
    from client import dataset

    real = dataset.only_labels

    def only(rows: Any, known: Any) -> Any:
        kept, left = real(rows, known)
        if left.total:
            raise DataError("a label that is not in the list", remedy="")
        return kept, left

    patch.setattr(dataset, "only_labels", only)


def nobody_is_refused(patch: Patch) -> None:
    """A site without a record that fits says so."""
    from client import dataset

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

    patch.setattr(rounds, "train_round", train)


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


def scores_for_one(patch: Patch) -> None:
    patch.setattr(outbox, "score_charge", lambda plan, count: REAL_SCORE_CHARGE(plan, 1))


# -- a second list: thought of after the checks had found all of the first -------------------------------------------


def constant_nonce(patch: Patch) -> None:
    """Receipts of one state are the same text: whoever reads them knows that nothing changed."""
    real = os.urandom
    patch.setattr(os, "urandom", lambda size: bytes(size) if size == 12 else real(size))


def key_of_the_name(patch: Patch) -> None:
    """The site's secret key follows from its folder's name."""

    def make(path: Path) -> bytes:
        path.write_bytes(hashlib.sha256(path.parent.name.encode()).digest())
        os.chmod(path, 0o600)
        return path.read_bytes()

    patch.setattr(store, "make_key", make)


def hashes_without_a_key(patch: Patch) -> None:
    def hashed(secret: bytes, people: Any) -> list[bytes]:
        return [hashlib.sha256(person.encode()).digest() for person in people]

    patch.setattr(ledger_module, "hashed", hashed)


def scores_anew(patch: Patch) -> None:
    """Scores that are asked for again come with other noise, for nothing."""
    seen: set[str] = set()

    def reserve(self: Any, release: Any, people: Any = ()) -> Any:
        return everybody(people) if release.key in seen else REAL_RESERVE(self, release, people)

    def seal(self: Any, key: str, payload: bytes) -> None:
        if key.endswith("/scores"):
            seen.add(key)
        else:
            REAL_SEAL(self, key, payload)

    patch.setattr(FileLedger, "reserve", reserve)
    patch.setattr(FileLedger, "afford", lambda self, release: None)
    patch.setattr(FileLedger, "seal", seal)


def another_plan_for_a_reservation(patch: Patch) -> None:
    """What was reserved and not sealed may be done under another plan."""
    real = FileLedger._affordable

    def affordable(self: Any, book: Any, release: Any) -> Any:
        return real(self, book, book.reserved.get(release.key, release))

    patch.setattr(FileLedger, "_affordable", affordable)


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
    real = outbox.check_scores

    def allowed(site: Any, plan: Any) -> str:
        return "noised" if site.limits.scores == "none" else real(site, plan)

    patch.setattr(app.outbox, "check_scores", allowed)


def exact_scores(patch: Patch) -> None:
    patch.setattr(app.outbox, "check_scores", lambda site, plan: "exact")
    patch.setattr(app.outbox, "scores", lambda site, number, values: outbox.write_scores(number, values))


def log_quotes(patch: Patch) -> None:
    """The log of a site gets the text of a foreign exception, and what a record holds."""
    from client import dataset

    real = dataset._tell

    def tell(site: Any, rows: Any, left: Any) -> None:
        real(site, rows, left)
        for row in rows.records:
            dataset.log.warning("read %s", row.get("text", ""))

    patch.setattr(dataset, "_tell", tell)


def own_epsilon_of_the_plan(patch: Patch) -> None:
    """The site counts at the delta of the plan, not at its own."""
    real = app.Site.open_ledger

    def opened(self: Any, unit: str) -> Any:
        return real(self.model_copy(update={"limits": self.limits.model_copy(update={"delta": 1e-3})}), unit)

    patch.setattr(app.Site, "open_ledger", opened)


# -- the table --------------------------------------------------------------------------------------------------------

LEAST, UNSEALED = "least epsilon on record", "unsealed memory trusted"
BREAKAGES: dict[str, tuple[Break, str, str]] = {
    "every other round not recorded": (every_other_round_unrecorded, "books", "steps on record"),
    "recorded after training": (paid_afterwards, "books", "computed before paid"),
    "recorded as cheaper than it is": (booked_too_cheap, "accounts", LEAST),
    "a stage that is rehearsed does not pay": (only_the_present_stage_pays, "accounts", LEAST),
    "a sealed round trained again": (sealed_rounds_trained_again, "books", "a second update of a round"),
    "many scores for the price of one": (scores_for_one, "own scores", "scores on record (small)"),
    "the register is never asked": (never_asked, "taking part", "others' people in a round"),
    "the register lets everybody into every group": (in_every_group, "taking part", "others' people in a round"),
    "nobody's own budget counts": (nobody_is_left_out_for_the_budget, "taking part", "a person's own budget"),
    "a refusal depends on who is registered": (
        left_out_is_refused,
        "taking part",
        "a refusal tells who is registered",
    ),
    "the limit is never enforced": (
        lambda patch: patch.setattr(totals.Totals, "afford", lambda self: None),
        "accounts",
        "rounds beyond the limit",
    ),
    "only the smallest group counts": (smallest_group, "accounts", LEAST),
    "equal events counted once": (merge_drops, "accounts", LEAST),
    "half of epsilon": (half_epsilon, "accounts", LEAST),
    "epsilon at another delta": (at_another_delta, "accounts", LEAST),
    "units without names pay for themselves": (nameless_pay_for_themselves, "accounts", LEAST),
    "the anchor is never checked": (anchor_never_checked, "set back", "a ledger set back goes on"),
    "receipts are never checked": (
        lambda patch: patch.setattr(FileLedger, "acknowledge", lambda self, receipt: None),
        "set back",
        "a ledger set back goes on",
    ),
    "what is sent again is not compared with its seal": (any_bytes_for_a_seal, "set back", "a ledger set back goes on"),
    "memory open to others": (open_memory, "set back", "files open to others"),
    "memory of an unsealed round trusted": (trusted_without_a_seal, "attempts", f"{UNSEALED} (feedback, again)"),
    "memory trusted by its round": (trusted_by_its_round, "attempts", f"{UNSEALED} (feedback, the next round)"),
    "sealed before the memory": (sealed_before_the_memory, "attempts", "sealed without its memory"),
    "other noise when asked again": (another_noise_on_resend, "attempts", "another update of a round"),
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
    "receipts with one nonce": (constant_nonce, "attempts", "receipts alike"),
    "a key that follows from the site's name": (key_of_the_name, "counted once", "kept by a secret"),
    "a register hashed without a key": (hashes_without_a_key, "set back", "registers alike"),
    "scores anew when asked again": (scores_anew, "attempts", "other scores of a round"),
    "another plan under a reservation": (
        another_plan_for_a_reservation,
        "attempts",
        "another plan under a reservation",
    ),
    "privacy not required": (check_without("differential privacy only"), "policy", "work against the policy"),
    "any delta accepted": (check_without("is above the site's"), "policy", "work against the policy"),
    "scores for everybody": (scores_for_everybody, "policy", "work against the policy"),
    "exact scores": (exact_scores, "own scores", "scores on record (small)"),
    "the log quotes a record": (log_quotes, "policy", "records in the log"),
    "counted at another delta than the site's": (own_epsilon_of_the_plan, "accounts", LEAST),
    "paid before the trial": (pays_first, "refusals", "paid for impossible tasks"),
}
"""what is broken -> how, the check that must find it, the finding that must say so."""


@pytest.fixture(autouse=True)
def _disk_that_does_not_flush(monkeypatch: Patch) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.mark.parametrize("what", BREAKAGES)
def test_a_broken_site_is_found_by_the_check_made_for_it(what: str, monkeypatch: Patch) -> None:
    apply, check, finding = BREAKAGES[what]
    apply(monkeypatch)
    failed = [found.name for found in run_check(check, EFFORTS["quick"]) if not found.passed]
    assert finding in failed
