"""The gate: does this very installation do what its privacy claim says? Minutes on one core, no data, no server.

    for finding in run_gate("quick"): print(finding)

It plays practice rounds through the code that real rounds take (``client/rounds.py``) and reads the updates that come
out. A correct program fails a run of the whole gate about once in 8,000 (each of some dozen statistical checks has
probability 1e-5, ``finding.ALPHA``); ``tests/client/test_gate_breakages.py`` shows which fault each check finds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import torch

from client.audit.books import books
from client.audit.canaries import canaries
from client.audit.effort import EFFORTS, Effort
from client.audit.people import neighbours, sensitivity, used_once, whole_updates
from client.audit.randomness import drawn_batches, empty_steps, noise_and_draws, restart, telling_bits
from client.audit.scores import scores
from llmchain_fl.errors import ConfigError
from llmchain_fl.privacy.audit.conformance import never
from llmchain_fl.privacy.audit.finding import Finding

Check = Callable[[Path, Effort], list[Finding]]

CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        "noise and draws": noise_and_draws,
        "drawn batches": drawn_batches,
        "empty steps": empty_steps,
        "restart": restart,
        "telling bits": telling_bits,
        "sensitivity": sensitivity,
        "neighbours": neighbours,
        "used once": used_once,
        "whole updates": whole_updates,
        "books": books,
        "scores": scores,
        "canaries": canaries,
    }
)
"""name -> a check: it plays what it needs in the given folder and says what it found."""


def run_gate(effort: str = "quick", only: tuple[str, ...] = ()) -> list[Finding]:
    """All findings of all checks (or of ``only`` some), in order.

    A check that breaks off is a finding too: the program did not let itself be checked.

    Raises:
        ConfigError: no such effort or check.
    """
    unknown = [name for name in only if name not in CHECKS]
    if effort not in EFFORTS or unknown:
        raise ConfigError(
            [f"effort {effort!r}, one of {sorted(EFFORTS)}", f"checks {unknown}, some of {sorted(CHECKS)}"]
        )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [finding for name in only or tuple(CHECKS) for finding in run_check(name, EFFORTS[effort])]
    finally:
        torch.set_num_threads(threads)


def run_check(name: str, effort: Effort, below: Path | None = None) -> list[Finding]:
    """The findings of one check, played in a temporary folder (``below`` a given one)."""
    with tempfile.TemporaryDirectory(prefix="gate-", dir=below) as folder:
        try:
            return CHECKS[name](Path(folder), effort)
        except Exception as error:
            return [never(f"{name} broke off", 1, f"{type(error).__name__}; the other checks tell more.")]
