"""``llmchain-fl privacy``: what a run will cost, what a site has spent, whether the promise is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Cost of a run before it starts, a site's ledger, and checks of the promise.", no_args_is_help=True
)

Json = Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")]


@app.command("plan")
def plan(
    scenario: Annotated[str, typer.Argument(help="A shipped scenario (see `scenarios`) or a .toml file.")] = "demo",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting: --set privacy.epsilon=3 (repeat it).")
    ] = None,
    persons: Annotated[
        int | None, typer.Option("--persons", min=1, help="How many persons the smallest site has (a public figure).")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw epsilon over rounds: FILE.svg, .png or .pdf.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What a scenario will cost, before anyone trains. Reads no data, spends nothing."""
    from llmchain_fl.cli.privacy_plan import show_plan
    from llmchain_fl.config.read import read_config
    from llmchain_fl.scenario import find_scenario

    config = read_config(find_scenario(scenario), list(settings or []))
    show_plan(config, scenario, persons, plot, as_json)


@app.command("ledger")
def ledger(
    path: Annotated[Path, typer.Argument(help="A site file (site.toml), or the directory of a simulated run.")],
    as_json: Json = False,
    renew_anchor: Annotated[
        bool, typer.Option("--renew-anchor", help="One site: accept this ledger as the newest one, after a restore.")
    ] = False,
) -> None:
    """What a site has spent: its ledger, verified line by line."""
    from llmchain_fl.cli.privacy_ledger import show_ledgers

    show_ledgers(path, as_json, renew_anchor)


@app.command("audit")
def audit(
    effort: Annotated[str, typer.Option("--effort", help="quick (under a minute) or full.")] = "quick",
    run: Annotated[
        Path | None, typer.Option("--run", help="Try a membership attack on the adapter of this simulated run.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Try to break the promise: conformance checks and attacks on the shipped code, on made-up data."""
    from llmchain_fl.cli.privacy_audit import show_audit

    show_audit(effort, run, as_json)
