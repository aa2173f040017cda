"""Every error this project raises on purpose, in one tree.

::

    LlmchainError                 exit code 2; says what is wrong and what to do
    ├── ConfigError               the run's configuration; lists all faults at once
    ├── DataError                 a file of records: which file, which line, never the record
    ├── ModelError                a base model or an adapter that cannot be had or does not fit
    ├── RunError                  a run directory that is missing, foreign or damaged; a run that cannot go on
    ├── PrivacyError              a plan that is not one, or not funded
    │   └── BudgetExhausted       the next round would pass the site's limit
    ├── AdmissionError            a reply that must not be summed
    ├── WireError                 a message that does not follow the protocol
    ├── TrainingError             local training that did not do what it was asked
    └── SecureSumError            a step of the secure sum that a site or the server must not take

Client side: only ``code`` leaves the site, never ``str(error)`` (see ``client/app.py``).
"""

from __future__ import annotations

from typing import ClassVar

SAME = "server and site must run the same version"
"""The remedy where a message is none of this version."""


class LlmchainError(Exception):
    """Base of the tree.

    ``what`` is wrong, naming value and bound, never the text of a record; ``remedy``: what the reader can do about it.
    """

    code: ClassVar[str] = "error"

    def __init__(self, what: str, *, remedy: str) -> None:
        super().__init__(f"{what}\n  -> {remedy}" if remedy else what)
        self.what = what
        self.remedy = remedy


class ConfigError(LlmchainError):
    """A configuration that cannot run; ``faults`` holds every fault found, one line each."""

    code = "config"

    def __init__(self, faults: list[str], *, remedy: str = "correct the lines above; nothing was started") -> None:
        self.faults = list(faults)
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        super().__init__(f"the configuration has {count}:\n" + "\n".join(f"  * {f}" for f in faults), remedy=remedy)


class DataError(LlmchainError):
    """Records that cannot be read as asked.

    ``what``: without a word of any record. ``where``: file and, where there is one, line (``data/a.jsonl:17``).
    """

    code = "data"

    def __init__(self, what: str, *, where: str = "", remedy: str) -> None:
        super().__init__(f"{where}: {what}" if where else what, remedy=remedy)
        self.where = where


class ModelError(LlmchainError):
    """A base model, tokenizer or adapter that cannot be loaded or does not fit."""

    code = "model"


class RunError(LlmchainError):
    """A run directory that is missing, belongs to another configuration, or is damaged; a run that cannot go on."""

    code = "run"


class PrivacyError(LlmchainError):
    """A privacy plan that makes no sense or that the site does not allow."""

    code = "privacy"


class BudgetExhausted(PrivacyError):
    """The next round would take a site past its epsilon; nothing has been spent on it."""

    code = "budget"


class AdmissionError(LlmchainError):
    """A reply that must not be summed (wrong names, shapes, dtype, not finite, too long)."""

    code = "admission"


class WireError(LlmchainError):
    """A message that does not follow the protocol of ``wire.py``."""

    code = "wire"


class TrainingError(LlmchainError):
    """Local training that did not do what it was asked (for instance: no parameter moved)."""

    code = "training"


class SecureSumError(LlmchainError):
    """A step of the secure sum that must not be taken; ``check`` is its word in ``core/secure/checks.py``."""

    code = "secure"

    def __init__(self, what: str, *, remedy: str, check: str = "") -> None:
        super().__init__(f"{check}: {what}" if check else what, remedy=remedy)
        self.check = check


CODES = frozenset(
    kind.code
    for kind in (
        LlmchainError,
        ConfigError,
        DataError,
        ModelError,
        RunError,
        PrivacyError,
        BudgetExhausted,
        AdmissionError,
        WireError,
        TrainingError,
        SecureSumError,
    )
)
"""Every word a refusal may consist of."""
