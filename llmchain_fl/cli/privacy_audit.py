"""``llmchain-fl privacy audit``: the gate's findings as a table for people, and an attack on a finished adapter."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from llmchain_fl.cli import privacy_membership as membership
from llmchain_fl.cli.privacy_ledger import app_module
from llmchain_fl.errors import ConfigError, PrivacyError

if TYPE_CHECKING:
    from llmchain_fl.privacy.audit.finding import Finding

EFFORTS = ("quick", "full")


def gate() -> Callable[[str], Sequence[Finding]]:
    """``client.audit.gate.run_gate``: effort -> findings."""
    found: Callable[[str], Sequence[Finding]] = app_module("client.audit.gate").run_gate
    return found


def show_audit(effort: str, run: Path | None, as_json: bool) -> None:
    """Run the checks, print every finding, try the attack where a run is given, end with an error if something broke.

    Raises:
        ConfigError: no such effort.
        RunError: the run cannot be attacked.
        PrivacyError: a check failed, or the attack found more than the claim allows; names them.
    """
    if effort not in EFFORTS:
        raise ConfigError([f"--effort {effort!r}: must be one of {', '.join(EFFORTS)}"])
    tried = None if run is None else membership.attack(run)
    findings = list(gate()(effort))
    if as_json:
        told = {"effort": effort, "findings": [as_dict(found) for found in findings]}
        attack = {"membership": membership.as_dict(tried)} if tried else {}
        typer.echo(json.dumps({**told, **attack}, indent=1, allow_nan=False))
    else:
        print_findings(Console(), effort, findings)
        if tried:
            typer.echo("\n" + "\n".join(membership.attack_lines(tried)))
    _judge(findings, tried)


def _judge(findings: Sequence[Finding], tried: membership.Attack | None) -> None:
    failed = [found.name for found in findings if not found.passed]
    if failed:
        raise PrivacyError(
            f"{len(failed)} of {len(findings)} checks failed: {', '.join(failed)}",
            remedy="train nothing on real records with this installation; compare it with a released version",
        )
    if tried and tried.broken:
        raise PrivacyError(
            f"the membership attack on {tried.run} found more than the run's epsilon allows",
            remedy="do not release this adapter; find out how the run was trained, and on what",
        )


def as_dict(found: Finding) -> dict[str, Any]:
    """A finding as plain values; a bound or a figure that is not finite is null."""
    low, high = (value if math.isfinite(value) else None for value in found.allowed)
    measured = found.measured if math.isfinite(found.measured) else None
    return {
        "name": found.name,
        "passed": found.passed,
        "measured": measured,
        "allowed": [low, high],
        "words": found.words,
    }


def finding_lines(findings: Sequence[Finding]) -> list[str]:
    """Two lines for each check: result, what was measured, what a correct program may show; then what it means."""
    width = max((len(found.name) for found in findings), default=0)
    lines = []
    for found in findings:
        low, high = found.allowed
        allowed = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
        mark = "pass" if found.passed else "FAIL"
        lines.append(f"  {mark}  {found.name.ljust(width)}  {found.measured:.4g} (allowed {allowed})")
        lines.append(f"        {found.words}")
    return lines


def print_findings(console: Console, effort: str, findings: Sequence[Finding]) -> None:
    """All findings, and how many of them are good."""
    head = f"Checks of this installation, effort {effort}. Practice data only: no record is read, nothing is spent."
    passed = sum(found.passed for found in findings)
    for line in (head, "", *finding_lines(findings), "", f"{passed} of {len(findings)} checks passed."):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
