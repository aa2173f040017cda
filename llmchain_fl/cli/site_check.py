"""``llmchain-fl site check``: everything that can be known of a site before it joins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from llmchain_fl.onprem.kit import SiteKit
    from llmchain_fl.onprem.site_check.subject import Plan, Subject
    from llmchain_fl.planning.findings import Findings

WORDS = {"fact": "ok", "warning": "warning", "fault": "refusal"}
COLORS = {"fact": typer.colors.GREEN, "warning": typer.colors.YELLOW, "fault": typer.colors.RED}


def command(
    place: Annotated[Path, typer.Argument(help="The folder of a kit, or a site file (site.toml).")] = Path(),
    scenario: Annotated[
        str, typer.Option("--scenario", help="What is planned, where the kit does not say: a name or a .toml file.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of the page.")] = False,
) -> None:
    """Check records, machine, keys, coordinator, code and budget. Nothing leaves the site, no record is shown.
    Exit code 2 with refusals, 0 without."""
    from llmchain_fl.onprem.site_check import check_site

    findings = check_site(_subject(place, scenario))
    _show(findings, as_json=as_json)
    if findings.faulty:
        raise typer.Exit(2)


def _subject(place: Path, scenario: str) -> Subject:
    from llmchain_fl.cli.apps import app_root, tool
    from llmchain_fl.onprem.certificates import utc_now
    from llmchain_fl.onprem.kit import KIT, SITE, read_site_kit
    from llmchain_fl.onprem.site_check.subject import Subject

    file = place / SITE if place.is_dir() else place
    site = tool("client.site").read_site(file)
    kit = read_site_kit(file.parent) if (file.parent / KIT).is_file() else None
    return Subject(site, file.parent, app_root(), utc_now(), kit, _plan(file.parent, kit, scenario))


def _plan(folder: Path, kit: SiteKit | None, scenario: str) -> Plan | None:
    from llmchain_fl.config.read import read_config
    from llmchain_fl.data.stages import public_labels, stage_labels
    from llmchain_fl.onprem.kit import SCENARIO
    from llmchain_fl.onprem.site_check.subject import Plan
    from llmchain_fl.scenario import find_scenario

    if scenario:
        config = read_config(find_scenario(scenario))
        labels = public_labels(config)
        return Plan(config, labels, {stage.name: stage_labels(stage, list(labels)) or [] for stage in config.stage})
    if kit is None or not (folder / SCENARIO).is_file():
        return None
    return Plan(read_config(folder / SCENARIO), kit.labels, kit.stages)


def _show(findings: Findings, *, as_json: bool) -> None:
    from dataclasses import asdict

    from llmchain_fl.core.printable import printable

    if as_json:
        lines = [{**asdict(one), "level": WORDS[one.level]} for one in findings]
        typer.echo(json.dumps({"ok": not findings.faulty, "lines": lines}, indent=1))
        return
    for one in findings:
        typer.secho(f"{WORDS[one.level]:8}", fg=COLORS[one.level], nl=False)
        typer.echo(f" {one.about:12} {printable(one.text)}")
        if one.remedy and one.level != "fact":
            typer.echo(f"{'':22} -> {printable(one.remedy)}")
    faults, warnings = (sum(one.level == level for one in findings) for level in ("fault", "warning"))
    verdict = f"{faults} refusal{'s' * (faults != 1)}" if faults else "ready to join"
    typer.echo(f"\n{verdict}, {warnings} warning{'s' * (warnings != 1)}")
