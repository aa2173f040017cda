"""The gate: does this very installation do what its privacy claim says? Under a minute on one core, no data, no server.

    for finding in run_gate("quick"): print(finding)

Two kinds of made-up sites are played. A *practice site* (``practice.py``) has a model so simple that every number of an
update can be read; it takes the path of every round (``client/rounds.py``). A *whole site* (``own_site.py``) has files,
a policy, a ledger and a language model, and is asked as a server asks, through ``client.app``; it plays the settings of
a run of your own (optimiser, guards, codec, memory, steps, head, task, base), or a table of small ones. The integers of
shared noise (``integer_noise.py``) are looked at by themselves: many sites' shares, added up.

A correct program fails a run of the whole gate at most once in 2,600: each of 38 kinds of statistical checks has
probability 1e-5 (``finding.ALPHA``), shared out where one is made for many settings; everything else is a count or a
bound. ``tests/client/test_gate_breakages*.py`` show which fault each check finds.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType

import torch

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.methods import LOCKSTEP
from llmchain_fl.privacy.audit.conformance import never
from llmchain_fl.privacy.audit.finding import Finding
from simulations.audit.accounts import accounts
from simulations.audit.attempts import attempts
from simulations.audit.books import books
from simulations.audit.canaries import canaries
from simulations.audit.effort import EFFORTS, Effort
from simulations.audit.entropy import entropy
from simulations.audit.hostile_arrays import ARRAYS
from simulations.audit.integer_noise import CHECKS as INTEGERS
from simulations.audit.integer_noise import of_plan
from simulations.audit.own_noise import own_noise
from simulations.audit.own_people import own_people
from simulations.audit.own_rows import own_rows
from simulations.audit.own_run import DISTILL, SETTINGS, Setting, setting, small
from simulations.audit.own_scores import own_scores
from simulations.audit.people import neighbours, sensitivity, used_once, whole_updates
from simulations.audit.policy import policy
from simulations.audit.randomness import drawn_batches, empty_steps, noise_and_draws, restart, telling_bits
from simulations.audit.refusals import refusals
from simulations.audit.scores import scores
from simulations.audit.set_back import set_back
from simulations.audit.taking_part import counted_once, taking_part
from simulations.audit.tiny_base import NARROW

Check = Callable[[Path, Effort], list[Finding]]
Checks = Mapping[str, Check]

PRACTICE: Checks = MappingProxyType(
    {
        "noise and draws": noise_and_draws,
        "drawn batches": drawn_batches,
        "empty steps": empty_steps,
        "restart": restart,
        "telling bits": telling_bits,
        "entropy": entropy,
        "sensitivity": sensitivity,
        "neighbours": neighbours,
        "used once": used_once,
        "whole updates": whole_updates,
        "books": books,
        "scores": scores,
        "canaries": canaries,
    }
)
"""Checks of a practice site."""

RULES: Checks = MappingProxyType(
    {
        "taking part": taking_part,
        "counted once": counted_once,
        "accounts": accounts,
        "set back": set_back,
        "attempts": attempts,
        "refusals": refusals,
        "policy": policy,
    }
)
"""Checks of what a whole site does between rounds."""

PEOPLE: Mapping[str, Callable[[], Setting]] = MappingProxyType(
    {
        "ordinary": lambda: Setting(small(guards=(DISTILL,)), name="distilled"),
        "zero": lambda: Setting(small(head="trained"), name="trained head"),
        "ill-conditioned": lambda: Setting(small(), name="small"),
        "overflowing": lambda: Setting(small(), name="small"),
    }
)
"""kind of hostile arrays -> the small setting that is played with them."""


def _on(check: Callable[[Path, Effort, Setting], list[Finding]], make: Callable[[], Setting]) -> Check:
    return lambda folder, effort: check(folder, effort, make())


def _people(kind: str, make: Callable[[], Setting]) -> Check:
    return lambda folder, effort: own_people(folder, effort, make(), kind)


SMALL: Checks = MappingProxyType(
    {
        **{f"own noise: {name}": _on(own_noise, partial(setting, name)) for name in SETTINGS},
        **{f"own people: {kind}": _people(kind, make) for kind, make in PEOPLE.items()},
        "own people: half precision": _people(
            "ordinary", lambda: Setting(small(dtype="bfloat16"), name="half precision")
        ),
        "own people: rounding": _people("overflowing", lambda: Setting(small(width=NARROW), name="narrow")),
        "own people: layer norm": _people("ordinary", lambda: Setting(small(variant="layer-norm"), name="layer norm")),
        "own people: kept outputs": _people("ordinary", lambda: Setting(small(last_layers=1), name="kept outputs")),
        "own people: head in lockstep": _people(
            "ordinary",
            lambda: Setting(small(head="trained", method=LOCKSTEP, head_alone=True), name="head in lockstep"),
        ),
        "own people: sums by label": _people("ordinary", partial(setting, "sums by label")),
        "own rows": _on(own_rows, lambda: Setting(small(guards=(DISTILL,)), name="small")),
        "own scores": _on(own_scores, lambda: Setting(small(), name="small")),
    }
)
"""Checks of a whole site under the small settings."""

CHECKS: Checks = MappingProxyType({**PRACTICE, **INTEGERS, **RULES, **SMALL})
"""name -> a check: it plays what it needs in the given folder and says what it found."""


def checks_of(settings: Sequence[Setting]) -> Checks:
    """All checks, those of the small settings made with a run's own instead (``own_run.of_run``).

    Raises:
        ConfigError: it has no privacy, or none at the site: there is no promise to check.
    """
    plan = settings[0].work.plan
    if plan is None or not plan.is_private or plan.unit == "site":
        raise ConfigError(["the run adds no noise at its sites: there is nothing that the audit could check"])
    checks: dict[str, Check] = {**PRACTICE, **INTEGERS, **RULES}
    if settings[0].shared is not None:
        checks.update(of_plan(settings[0].shared))
    for own in settings:
        checks[f"own noise: {own.name}"] = _on(own_noise, partial(_same, own))
        if own.sums:
            checks[f"own people: {own.name}"] = _people("ordinary", partial(_same, own))
    plain = partial(_same, settings[0])
    for kind in ARRAYS:
        checks[f"own people: {kind}"] = _people(kind, plain)
    return {**checks, "own rows": _on(own_rows, plain), "own scores": _on(own_scores, plain)}


def _same(own: Setting) -> Setting:
    return own


def run_gate(
    effort: str = "quick", only: tuple[str, ...] = (), settings: Sequence[Setting] | None = None
) -> list[Finding]:
    """All findings of all checks (or of ``only`` some), in order; ``settings``: of a run of your own.

    A check that breaks off is a finding too: the program did not let itself be checked.

    Raises:
        ConfigError: no such effort or check, or a run without privacy.
    """
    checks = CHECKS if settings is None else checks_of(settings)
    unknown = [name for name in only if name not in checks]
    if effort not in EFFORTS or unknown:
        raise ConfigError(
            [f"effort {effort!r}, one of {sorted(EFFORTS)}", f"checks {unknown}, some of {sorted(checks)}"]
        )
    with _alone():
        return [entry for name in only or tuple(checks) for entry in run_check(name, EFFORTS[effort], checks=checks)]


def run_check(name: str, effort: Effort, below: Path | None = None, checks: Checks | None = None) -> list[Finding]:
    """The findings of one check, played in a temporary folder: ``below`` a given one, else in memory if it can be."""
    with tempfile.TemporaryDirectory(prefix="gate-", dir=below or _memory()) as folder:
        try:
            return (CHECKS if checks is None else checks)[name](Path(folder), effort)
        except Exception as error:
            return [never(f"{name} broke off", 1, f"{type(error).__name__}; the other checks tell more.")]


def _memory() -> Path | None:
    """A folder in memory: a thousand small ledgers need no disk."""
    folder = Path("/dev/shm")
    return folder if folder.is_dir() and os.access(folder, os.W_OK) else None


@contextmanager
def _alone() -> Iterator[None]:
    """One thread, and no word in the log of what made-up sites do with made-up records."""
    log = logging.getLogger("llmchain_fl.client")
    threads, level = torch.get_num_threads(), log.level
    torch.set_num_threads(1)
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        log.setLevel(level)
