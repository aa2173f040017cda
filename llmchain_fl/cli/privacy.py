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
    scenario: Annotated[
        str, typer.Argument(help="A shipped scenario (see `scenarios`) or a .toml file.", show_default="demo")
    ] = "",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting: --set privacy.epsilon=3 (repeat it).")
    ] = None,
    persons: Annotated[
        int | None, typer.Option("--persons", min=1, help="How many persons the smallest site has (a public figure).")
    ] = None,
    records_per_person: Annotated[
        int | None, typer.Option("--records-per-person", min=1, help="Unit record: most records of one person.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw epsilon over rounds: FILE.svg, .png or .pdf.")
    ] = None,
    recommended: Annotated[
        bool, typer.Option("--recommend", help="Instead: settings that fit --persons, --sites and --epsilon.")
    ] = False,
    sites: Annotated[int | None, typer.Option("--sites", help="--recommend: how many sites take part.")] = None,
    epsilon: Annotated[float | None, typer.Option("--epsilon", help="--recommend: budget of a site.")] = None,
    delta: Annotated[float | None, typer.Option("--delta", help="--recommend: delta (1e-5).")] = None,
    labels: Annotated[int | None, typer.Option("--labels", help="--recommend: labels of the task (77).")] = None,
    width: Annotated[int | None, typer.Option("--width", help="--recommend: width of the base (384).")] = None,
    rounds: Annotated[int | None, typer.Option("--rounds", help="--recommend: rounds you can afford (60).")] = None,
    as_json: Json = False,
) -> None:
    """What a scenario will cost, before anyone trains. Reads no data, spends nothing."""
    from llmchain_fl.cli.privacy_plan import show_plan
    from llmchain_fl.cli.privacy_recommend import refuse_beside, show_recommendation
    from llmchain_fl.config.read import read_config
    from llmchain_fl.scenario import find_scenario

    public = {"sites": sites, "epsilon": epsilon, "delta": delta, "labels": labels, "width": width, "rounds": rounds}
    of_a_plan = {"SCENARIO": scenario, "--set": settings, "--records-per-person": records_per_person, "--plot": plot}
    if recommended:
        refuse_beside(of_a_plan, "--recommend reads no scenario: leave out")
        show_recommendation({"persons": persons, **public}, as_json)
        return
    refuse_beside({f"--{name}": value for name, value in public.items()}, "without --recommend a scenario says it all:")
    name = scenario or "demo"
    show_plan(
        read_config(find_scenario(name), list(settings or [])), name, (persons, records_per_person), plot, as_json
    )


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
    scenario: Annotated[
        str, typer.Argument(help="Play the settings of this scenario (or .toml file); else small ones of its own.")
    ] = "",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting: --set train.optimizer=sgd (repeat it).")
    ] = None,
    effort: Annotated[str, typer.Option("--effort", help="quick (under a minute) or full.")] = "quick",
    run: Annotated[
        Path | None,
        typer.Option("--run", help="Play the settings of this simulated run, and try a membership attack on it."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Try to break the promise: conformance checks and attacks on the shipped code, on made-up data."""
    from llmchain_fl.cli.privacy_audit import Asked, show_audit

    show_audit(Asked(effort, scenario, tuple(settings or ()), run), as_json)


@app.command("explain")
def explain(
    clip: Annotated[float | None, typer.Option("--clip", help="Clip norm C (Flower: clipping_norm).")] = None,
    delta: Annotated[float | None, typer.Option("--delta", help="Delta.")] = None,
    sensitivity: Annotated[
        float | None, typer.Option("--sensitivity", help="Stated sensitivity (Flower LocalDpMod); else the clip norm.")
    ] = None,
    epsilon: Annotated[float | None, typer.Option("--epsilon", help="Stated epsilon, of one release.")] = None,
    noise_multiplier: Annotated[
        float | None, typer.Option("--noise-multiplier", help="z: noise on the sum in units of C.")
    ] = None,
    sampling_rate: Annotated[float, typer.Option("--sampling-rate", help="q: chance of a unit in one step.")] = 1.0,
    steps: Annotated[int, typer.Option("--steps", help="Noised optimiser steps in a round.")] = 1,
    rounds: Annotated[int, typer.Option("--rounds", help="Rounds of the run.")] = 1,
    sites: Annotated[int | None, typer.Option("--sites", help="Updates in a round (num_sampled_clients).")] = None,
    persons: Annotated[int | None, typer.Option("--persons", help="Persons at the smallest site.")] = None,
    records_per_person: Annotated[
        int, typer.Option("--records-per-person", help="Unit record: what somebody with so many gets.")
    ] = 1,
    values: Annotated[int | None, typer.Option("--values", help="Numbers in one update (NVFlare SVTPrivacy).")] = None,
    fraction: Annotated[float, typer.Option("--fraction", help="SVTPrivacy: share of the values sent.")] = 0.1,
    noise_var: Annotated[float, typer.Option("--noise-var", help="SVTPrivacy: noise_var.")] = 0.1,
    gamma: Annotated[float, typer.Option("--gamma", help="SVTPrivacy: gamma.")] = 1e-5,
    file: Annotated[Path | None, typer.Option("--json", help="Write all of it to this file as JSON, too.")] = None,
) -> None:
    """What a stated noise setting is worth: ours, Flower's and NVFlare's. Reads no data, spends nothing."""
    from llmchain_fl.cli.privacy_explain import show_explanation
    from llmchain_fl.privacy.explain import Stated

    stated = Stated(
        clip,
        delta,
        sensitivity,
        epsilon,
        noise_multiplier,
        sampling_rate,
        steps,
        rounds,
        sites,
        persons,
        records_per_person,
        values,
        fraction,
        noise_var,
        gamma,
    )
    show_explanation(stated, file)
