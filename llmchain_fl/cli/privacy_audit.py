"""``llmchain-fl privacy audit``: the gate's findings as a table for people, and an attack on a finished adapter."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from llmchain_fl.cli import privacy_membership as membership
from llmchain_fl.cli.privacy_ledger import app_module
from llmchain_fl.core.errors import ConfigError, PrivacyError

if TYPE_CHECKING:
    from llmchain_fl.config.schema import RunConfig
    from llmchain_fl.privacy.audit.finding import Finding

EFFORTS = ("quick", "full")
SMALL = "small settings of its own"


@dataclass(frozen=True)
class Asked:
    """What to check: how much, and whose settings are played. ``scenario``: empty for none."""

    effort: str
    scenario: str = ""
    changes: tuple[str, ...] = ()
    run: Path | None = None

    @property
    def whose(self) -> str:
        """In words."""
        return self.scenario or (str(self.run) if self.run else SMALL)

    def config(self) -> RunConfig | None:
        """The configuration that is played; None for the gate's own.

        Raises:
            ConfigError: no such scenario, faults in it, or changes to nothing.
            RunError: no such run.
        """
        from llmchain_fl.config.read import read_config
        from llmchain_fl.run_dir import RunDir
        from llmchain_fl.scenario import find_scenario

        if self.scenario and self.run:
            raise ConfigError(["a scenario and --run: play the settings of one of them"])
        if self.changes and not self.scenario:
            raise ConfigError(["--set changes a scenario: name one"])
        if self.scenario:
            return read_config(find_scenario(self.scenario), list(self.changes))
        config = None if self.run is None else read_config(RunDir.open(self.run).config)
        return config if config is not None and config.privacy.enabled and config.privacy.unit != "site" else None


def gate() -> Callable[..., Sequence[Finding]]:
    """``simulations.audit.gate.run_gate``: effort and settings of a run -> findings."""
    run_gate: Callable[..., Sequence[Finding]] = app_module("simulations.audit.gate").run_gate
    return run_gate


def own_settings(config: RunConfig) -> Sequence[Any]:
    """A run's settings as the gate plays them (``audit.own_run.of_run``): its work, and what its rule trains.

    Raises:
        ConfigError: it has no privacy.
        LlmchainError: its labels cannot be read.
    """
    from llmchain_fl.data.stages import public_labels
    from llmchain_fl.planning.work import work_from

    rule = app_module("server.parts").make_rule(config)
    plan = app_module("server.privacy_book").make_plan(config)
    work = work_from(config, public_labels(config), rule.trained, plan)
    schedule, of_run = rule.schedule(1), app_module("simulations.audit.own_run").of_run
    settings: Sequence[Any] = of_run(work, tuple(schedule.trains), tuple(schedule.keeps), sums=config.train.sums > 0)
    return settings


def show_audit(given: Asked, as_json: bool) -> None:
    """Run the checks, print every finding, try the attack where a run is given, end with an error if something broke.

    Raises:
        ConfigError: no such effort or scenario, or one without privacy.
        RunError: the run cannot be attacked.
        PrivacyError: a check failed, or the attack found more than the claim allows; names them.
    """
    if given.effort not in EFFORTS:
        raise ConfigError([f"--effort {given.effort!r}: must be one of {', '.join(EFFORTS)}"])
    tried, config, begun = None if given.run is None else membership.attack(given.run), given.config(), time.monotonic()
    findings = list(gate()(given.effort) if config is None else gate()(given.effort, settings=own_settings(config)))
    seconds = time.monotonic() - begun
    if as_json:
        facts = {"effort": given.effort, "settings": given.whose if config else SMALL, "seconds": round(seconds, 1)}
        attack = {"membership": membership.as_dict(tried)} if tried else {}
        listed = {"findings": [as_dict(finding) for finding in findings]}
        typer.echo(json.dumps({**facts, **listed, **attack}, indent=1, allow_nan=False))
    else:
        head = f"Checks of this installation, effort {given.effort}, with {given.whose if config else SMALL}."
        print_findings(Console(), head, findings, seconds)
        if tried:
            typer.echo("\n" + "\n".join(membership.attack_lines(tried)))
    _judge(findings, tried)


def _judge(findings: Sequence[Finding], tried: membership.Attack | None) -> None:
    failed = [finding.name for finding in findings if not finding.passed]
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


def as_dict(finding: Finding) -> dict[str, Any]:
    """A finding as plain values; a bound or a figure that is not finite is null."""
    low, high = (value if math.isfinite(value) else None for value in finding.allowed)
    measured = finding.measured if math.isfinite(finding.measured) else None
    return {
        "name": finding.name,
        "passed": finding.passed,
        "measured": measured,
        "allowed": [low, high],
        "words": finding.words,
    }


def finding_lines(findings: Sequence[Finding]) -> list[str]:
    """Two lines for each check: result, what was measured, what a correct program may show; then what it means."""
    width = max((len(finding.name) for finding in findings), default=0)
    lines = []
    for finding in findings:
        low, high = finding.allowed
        allowed = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
        mark = "pass" if finding.passed else "FAIL"
        lines.append(f"  {mark}  {finding.name.ljust(width)}  {finding.measured:.4g} (allowed {allowed})")
        lines.append(f"        {finding.words}")
    return lines


def print_findings(console: Console, head: str, findings: Sequence[Finding], seconds: float) -> None:
    """All findings, and how many of them are good."""
    passed = sum(finding.passed for finding in findings)
    end = f"{passed} of {len(findings)} checks passed. They took {seconds:.0f} s."
    practice = "Practice data only: no record is read, nothing is spent."
    for line in (f"{head} {practice}", "", *finding_lines(findings), "", end):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
