"""``llmchain-fl check SCENARIO``: everything that can be known of a run without a round."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llmchain_fl.config.schema import RunConfig
    from llmchain_fl.planning.findings import Finding, Findings

TITLES = {
    "fault": "keeps the run from starting",
    "warning": "worth a look",
    "fact": "good to know",
}


def command(
    scenario: Annotated[str, typer.Argument(help="A shipped scenario (see `scenarios`) or a .toml file.")] = "demo",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting: --set train.lr=0.01 (repeat it).")
    ] = None,
    model: Annotated[
        bool, typer.Option("--model/--no-model", help="Also open the base model and try one step on made-up records.")
    ] = True,
    real: Annotated[
        bool, typer.Option("--real-sites", help="The sites are real: training records are not here.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of the page.")] = False,
) -> None:
    """Check a scenario without a round: settings, records, texts, model, one dummy step, privacy. Exit code 2 with
    faults, 0 without."""
    from llmchain_fl.config.read import read_config
    from llmchain_fl.planning.findings import Findings
    from llmchain_fl.scenario import find_scenario

    findings = Findings()
    file = findings.attempt("settings", find_scenario, scenario)
    config = findings.attempt("settings", read_config, file, list(settings or [])) if file else None
    if config is not None:
        _check(findings, config, model=model, train=not real)
    _show(scenario, findings, as_json=as_json)
    if findings.faulty:
        raise typer.Exit(2)


def check_before(config: RunConfig, out: Path | None = None) -> None:
    """The cheap part, before anything heavy is imported: for every command that begins a run.

    Warnings are logged. ``out``: the run directory that was asked for.

    Raises:
        ConfigError: all faults at once.
        RunError: something is at ``out`` already.
    """
    from llmchain_fl.core.errors import RunError
    from llmchain_fl.planning.checks import check_records

    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(
            f"{out} is there already and not empty",
            remedy="name another directory, resume the run that is there, or move it away",
        )
    _conclude(check_records(config))


def check_cells(configs: Iterable[RunConfig]) -> None:
    """The records of many runs, each source read once; of runs that differ in other things than records, one.

    Raises:
        ConfigError: all faults at once.
    """
    from llmchain_fl.data.stages import Sources
    from llmchain_fl.planning.checks import check_records

    sources = Sources()
    findings: dict[Finding, None] = {}
    for config in {_records_of(config): config for config in configs}.values():
        findings |= dict.fromkeys(check_records(config, sources))
    _conclude(findings)


def _records_of(config: RunConfig) -> str:
    """All settings that say which records a run has; what a seed draws counts as the same."""
    settings = config.model_dump_json(include={"data", "task", "stage", "sites", "stream"})
    return f"{settings} {config.privacy.enabled} {config.privacy.unit} {config.continual.public}"


def _conclude(findings: Iterable[Finding]) -> None:
    import logging

    from llmchain_fl.core.errors import ConfigError

    chosen = {level: [_line(one) for one in findings if one.level == level] for level in ("fault", "warning")}
    if chosen["fault"]:
        raise ConfigError(chosen["fault"])
    for line in chosen["warning"]:
        logging.getLogger("llmchain_fl").warning("%s", line)


def _check(findings: Findings, config: RunConfig, *, model: bool, train: bool) -> None:
    from llmchain_fl.cli.apps import tool
    from llmchain_fl.planning.checks import check_records
    from llmchain_fl.planning.privacy_line import check_privacy

    findings += check_records(config, train=train)
    findings += check_privacy(config)
    if model and not findings.faulty:
        findings += tool("simulations.dummy").check_model(config, train=train)


def _show(scenario: str, lines: Findings, *, as_json: bool) -> None:
    import json
    from dataclasses import asdict

    from llmchain_fl.core.printable import printable

    if as_json:
        typer.echo(json.dumps({"scenario": scenario, "ok": not lines.faulty, "findings": [asdict(f) for f in lines]}))
        return
    for level, title in TITLES.items():
        chosen = [one for one in lines if one.level == level]
        if chosen:
            typer.echo(f"\n{title}:")
        for one in chosen:
            typer.echo(f"  {one.about:9} {printable(_line(one))}")
    faults, warnings = (sum(one.level == level for one in lines) for level in ("fault", "warning"))
    verdict = f"{faults} fault{'s' * (faults != 1)}" if faults else "ready to run"
    typer.echo(f"\n{printable(scenario)}: {verdict}, {warnings} warning{'s' * (warnings != 1)}")


def _line(one: Finding) -> str:
    return f"{one.text} -> {one.remedy}" if one.remedy else one.text
