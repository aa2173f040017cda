"""``llmchain-fl privacy plan --recommend``: settings from public numbers, as a page that ends in TOML, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from llmchain_fl.config.write import table_to_toml
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.planning.recommend import LORA_RANK, Public, Recommendation, recommend
from llmchain_fl.report import wording
from llmchain_fl.report.noised import noise_of_sum

PAGE = "docs/operating-points.md"


def show_recommendation(given: dict[str, int | float | None], as_json: bool) -> None:
    """Print what fits the public numbers ``given`` (fields of ``Public``; None: not told).

    Raises:
        ConfigError: a number that is needed was not told.
        PrivacyError: numbers out of bounds, or a budget that no noise reaches.
    """
    fields: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    missing = [f"--{name}" for name in ("persons", "sites", "epsilon") if name not in fields]
    if missing:
        raise ConfigError(
            [f"--recommend needs {', '.join(missing)}"],
            remedy="give public figures: --recommend --persons 400 --sites 10 --epsilon 3",
        )
    public = Public(**fields)
    recommendation = recommend(public)
    typer.echo(json.dumps(as_dict(public, recommendation), indent=1)) if as_json else _print(public, recommendation)


def refuse_beside(others: Mapping[str, object], why: str) -> None:
    """Refuse what does not go with the rest of the command line.

    Raises:
        ConfigError: one of ``others`` was given.
    """
    given = [name for name, value in others.items() if value not in (None, "", [])]
    if given:
        raise ConfigError([f"{why} {', '.join(given)}"], remedy="see llmchain-fl privacy plan --help")


def as_dict(public: Public, recommendation: Recommendation) -> dict[str, Any]:
    """Everything the page says, as plain values."""
    return {
        "public": asdict(public),
        "settings": recommendation.tree(),
        "rounds": recommendation.rounds,
        "reasons": dict(recommendation.reasons),
        "noise_multiplier": recommendation.z,
        "noise_over_signal": {
            name: {"trained": trained, "step": step, "run": run}
            for name, (trained, step, run) in zip(("head", "head and LoRA"), _rows(public, recommendation), strict=True)
        },
        "warnings": list(recommendation.warnings),
    }


def fragment(chosen: Recommendation) -> str:
    """The settings as TOML; what belongs to the stages, as a comment."""
    rounds = (
        f"# [[stage]]: rounds that add up to {chosen.rounds} over all stages (disjoint stages: {chosen.rounds} in each)"
    )
    return f"{table_to_toml(chosen.tree())}\n{rounds}\n"


def _rows(public: Public, recommendation: Recommendation) -> list[tuple[int, float, float]]:
    return list(zip((public.head, public.with_lora), recommendation.step, recommendation.run, strict=True))


def _print(public: Public, recommendation: Recommendation) -> None:
    console = Console()

    def say(text: str = "") -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    where = f"{wording.count(public.persons, 'person')} at each of {wording.count(public.sites, 'site')}"
    noise = noise_of_sum(public.shares, public.sites) if public.shares else ""
    terms = wording.guarantee(public.delta, "person", "pld", noise)
    say(f"Settings for {where}, budget epsilon {public.epsilon:g} ({terms}),")
    say(f"{public.labels:,} labels, vectors of {public.width:,} numbers. Nothing was read, nothing is spent. {PAGE}\n")
    reasons = Table(show_header=False, box=None, padding=(0, 2))
    for setting, why in recommendation.reasons:
        reasons.add_row(setting, why)
    console.print(reasons)
    say(f"\nNoise multiplier z = {recommendation.z:.3g} for {wording.count(recommendation.rounds, 'round')}.")
    say("Noise over signal: of one step, z sqrt(d) / (N q); of the run, for what one label can learn.")
    table = Table("trained", "d", "step", "run", box=None, padding=(0, 2))
    names = ("head alone", f"head, LoRA of rank {LORA_RANK} in one layer")
    for name, (trained, step, run) in zip(names, _rows(public, recommendation), strict=True):
        table.add_row(name, f"{trained:,}", f"{step:.3g}", f"{run:.3g}")
    console.print(table)
    if recommendation.warnings:
        say("\nWarnings:")
    for sentence in recommendation.warnings:
        say(f"  ! {sentence}")
    say("\nThese lines in place of those of a scenario, then `llmchain-fl check SCENARIO`:\n")
    say(fragment(recommendation))
