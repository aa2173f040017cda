"""Broken here: what a site keeps: ledger, register, memory, sealed updates.

Each fault is done to the real code; ``test_gate_breakages.py`` tries them all.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load

from client import memory, outbox
from llmchain_fl.core.privacy import ledger as ledger_module
from llmchain_fl.core.privacy import store
from llmchain_fl.core.privacy.ledger import FileLedger
from llmchain_fl.core.privacy.noise import SecureNoise
from llmchain_fl.core.privacy.store import Store

Patch = pytest.MonkeyPatch
Break = Callable[[Patch], None]
REAL_ADDED = SecureNoise.added
REAL_RESERVE = FileLedger.reserve
REAL_SEAL = FileLedger.seal
REAL_RELEASE = outbox.release


def real(self: SecureNoise, values: torch.Tensor, std: float) -> torch.Tensor:
    """Good noise alone."""
    return REAL_ADDED(self, torch.zeros_like(values), std)


def normal(values: torch.Tensor, std: float, generator: torch.Generator | None = None) -> torch.Tensor:
    return values + std * torch.randn(values.shape, generator=generator)


def everybody(people: Any) -> list[Any]:
    return [np.ones(len(names), dtype=bool) for _, names in people]


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

        arrays = {n: v + np.random.default_rng().normal(size=v.shape).astype(v.dtype) for n, v in load(sealed).items()}
        return outbox.write_update(task.round, arrays, ledger.receipt())

    patch.setattr(outbox, "release_again", again)


def any_bytes_for_a_seal(patch: Patch) -> None:
    """What lies in the file is sent, whatever was sealed."""

    def sealed(self: Any, key: str) -> Any:
        file = self._file(key)
        return file.read_bytes() if file.exists() else None

    patch.setattr(FileLedger, "sealed", sealed)


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


BREAKAGES: dict[str, tuple[Break, str, str]] = {
    "the anchor is never checked": (anchor_never_checked, "set back", "a ledger set back goes on"),
    "receipts are never checked": (
        lambda patch: patch.setattr(FileLedger, "acknowledge", lambda self, receipt: None),
        "set back",
        "a ledger set back goes on",
    ),
    "what is sent again is not compared with its seal": (any_bytes_for_a_seal, "set back", "a ledger set back goes on"),
    "memory open to others": (open_memory, "set back", "files open to others"),
    "memory of an unsealed round trusted": (
        trusted_without_a_seal,
        "attempts",
        "unsealed memory trusted (feedback, again)",
    ),
    "memory trusted by its round": (
        trusted_by_its_round,
        "attempts",
        "unsealed memory trusted (feedback, the next round)",
    ),
    "sealed before the memory": (sealed_before_the_memory, "attempts", "sealed without its memory"),
    "other noise when asked again": (another_noise_on_resend, "attempts", "another update of a round"),
    "receipts with one nonce": (constant_nonce, "attempts", "receipts alike"),
    "a key that follows from the site's name": (key_of_the_name, "counted once", "kept by a secret"),
    "a register hashed without a key": (hashes_without_a_key, "set back", "registers alike"),
    "scores anew when asked again": (scores_anew, "attempts", "other scores of a round"),
    "another plan under a reservation": (
        another_plan_for_a_reservation,
        "attempts",
        "another plan under a reservation",
    ),
}
"""what is broken -> how, the check that must find it, the finding that must say so."""
MISSED = (
    "memory open to others",
    "receipts with one nonce",
    "a register hashed without a key",
    "another plan under a reservation",
)
"""What no check found when the list was first tried."""
