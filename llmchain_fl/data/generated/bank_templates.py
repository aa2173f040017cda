"""The phrases of the synthetic bank: 24 intents in 3 stages, read from the TOML files beside this module.

Synthetic: every sentence was written for this project; none comes from a data set or from a customer.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

SPLITS = ("train", "test")

STAGES: dict[str, list[str]] = {
    "cards": [
        "card_arrival_late",
        "card_lost_or_stolen",
        "card_kept_by_machine",
        "card_payment_declined",
        "contactless_not_working",
        "pin_forgotten_or_blocked",
        "new_card_activation",
        "card_expiring_soon",
    ],
    "payments": [
        "transfer_not_arrived",
        "transfer_to_wrong_person",
        "unknown_direct_debit",
        "charged_twice",
        "refund_missing",
        "exchange_rate_wrong",
        "cash_withdrawal_wrong_amount",
        "standing_order_change",
    ],
    "accounts": [
        "login_locked_out",
        "suspicious_message_reported",
        "change_of_address",
        "repay_loan_early",
        "postpone_loan_instalment",
        "overdraft_fee_complaint",
        "close_account",
        "identity_documents_requested",
    ],
}
"""Stage name -> its 8 labels, both in the order in which a continual run meets them."""

LABELS: list[str] = [label for labels in STAGES.values() for label in labels]
"""All 24 labels, stage by stage."""

label_texts: dict[str, str] = {label: label.replace("_", " ") for label in LABELS}
"""Label -> the words a text head embeds for it ("card_arrival_late" -> "card arrival late")."""


@dataclass(frozen=True)
class Branch:
    """One branch of the bank: how often it meets each intent, relative to the other branches."""

    name: str
    weights: dict[str, float]


@dataclass(frozen=True)
class Phrases:
    """Everything the generators draw from.

    Attributes:
        templates: split -> label -> templates; the two splits share none.
        slots: slot name -> fillers.
        talk: "openers", "polite", "blunt", "chatter" -> sentences.
        branches: the branches, in file order.
        instructions: the instructions that precede a message in a dialogue.
        answers: label -> answers of the clerk; slots are echoed from the message.
    """

    templates: dict[str, dict[str, list[str]]]
    slots: dict[str, list[str]]
    talk: dict[str, list[str]]
    branches: list[Branch]
    instructions: list[str]
    answers: dict[str, list[str]]


@cache
def phrases() -> Phrases:
    """Read the TOML files once; callers must not change what they get."""
    by_label = {label: intent for stage in STAGES for label, intent in _read(f"bank_templates_{stage}.toml").items()}
    shared = _read("bank_templates_shared.toml")
    return Phrases(
        templates={split: {label: by_label[label][split] for label in LABELS} for split in SPLITS},
        slots=shared["slots"],
        talk=shared["talk"],
        branches=[_branch(name, entry) for name, entry in shared["branches"].items()],
        instructions=shared["dialogues"]["instructions"],
        answers=_read("bank_templates_answers.toml"),
    )


_BOOST = 4.0


def _branch(name: str, entry: dict[str, Any]) -> Branch:
    weights = {
        label: entry["weight"][stage] * (_BOOST if label in entry["boost"] else 1.0)
        for stage, labels in STAGES.items()
        for label in labels
    }
    return Branch(name, weights)


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath(name).read_text(encoding="utf-8"))
