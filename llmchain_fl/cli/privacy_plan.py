"""``llmchain-fl privacy plan``: a forecast as a page of text, or as JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from llmchain_fl.cli.privacy_shared import say_shared, shared_as_dict
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.privacy.plan import ADJACENCIES, STAGES, UNITS
from llmchain_fl.planning.forecast import Forecast, forecast, score_noise, scores_asked, warnings
from llmchain_fl.planning.shared_noise import shared_noise
from llmchain_fl.report import wording
from llmchain_fl.report.noised import noise_words

TARGETS = (1.0, 3.0, 8.0)
PEOPLE = (100, 1_000, 10_000)
SEVERAL = (2, 8)
WORDS = ((1.0, "drowned"), (10.0, "hard to see"), (100.0, "visible"))
"""Up to which N q / z the common pull of all drawn units is called what."""

PLOTS = (".svg", ".png", ".pdf")
NOT_PRIVATE = (
    "This scenario trains without differential privacy: nothing bounds what an update tells about a person.\n"
    "Set a budget, for example:\n"
    "  --set privacy.enabled=true --set privacy.epsilon=8 --set privacy.delta=1e-5\n"
    "and name the column that says whose record it is:\n"
    "  --set 'data.columns={{person = \"patient_id\"}}'\n"
    "Then: llmchain-fl privacy plan {scenario} --set privacy.enabled=true --set privacy.epsilon=8"
)


def show_plan(
    config: RunConfig, scenario: str, counts: tuple[int | None, int | None], plot: Path | None, as_json: bool
) -> None:
    """Print the forecast of ``config``, and draw it where asked.

    Args:
        config: of the run.
        scenario: its name, for the page.
        counts: persons at the smallest site; most records of one person (unit ``record``); None: not told.
        plot: file to draw to.
        as_json: one JSON object instead of the page.

    Raises:
        ConfigError: a plot of an unknown kind, or one that cannot be written; records of a person with another unit.
        PrivacyError: a budget that no noise reaches.
    """
    if plot is not None and plot.suffix not in PLOTS:
        raise ConfigError([f"--plot {plot}: must end in {', '.join(PLOTS)}"], remedy="nothing was written")
    plan = forecast(config)
    if plan is None:
        typer.echo(json.dumps({"private": False}) if as_json else NOT_PRIVATE.format(scenario=scenario))
        return
    people, records = counts
    if records is not None and plan.unit != "record":
        raise ConfigError(
            [f"--records-per-person {records}: a {plan.unit}'s records are one unit already"],
            remedy='leave it out, or set privacy.unit = "record"',
        )
    if as_json:
        typer.echo(json.dumps(as_dict(plan, config, people, records), indent=1, allow_nan=False))
    else:
        _print(plan, config, scenario, counts)
    if plot is not None:
        from llmchain_fl.cli.privacy_plot import draw

        draw(plan, plot)
        typer.echo(f"plot: {plot}", err=as_json)


def as_dict(plan: Forecast, config: RunConfig, people: int | None, records: int | None = None) -> dict[str, Any]:
    """Everything the page says, as plain values; an epsilon without a bound is null."""
    event = plan.round_event
    return {
        "private": True,
        "unit": plan.unit,
        "adjacency": next(iter(ADJACENCIES)),
        "delta": plan.delta,
        "accountant": plan.accountant,
        "target_epsilon": plan.target,
        "noise_multiplier": event.noise_multiplier,
        "calibrated": not config.privacy.noise_multiplier,
        "sampling_rate": event.sampling_rate,
        "steps_per_round": event.steps,
        "clip_norm": plan.clip_norm,
        "divisor": plan.divisor,
        "records_per_unit": _records(config),
        "stages": config.privacy.stages,
        "noise": plan.noise,
        "epsilon": [
            {"round": after, "counted": plan.counted(after), **_epsilons(plan, after)} for after in plan.milestones()
        ],
        "replace_one": _finite(plan.replacing(plan.rounds)),
        "several_records": {str(k): _finite(plan.for_somebody_with(k)) for k in _several(plan, records)},
        "noise_multiplier_for": {f"{target:g}": plan.multiplier_for(target) for target in TARGETS},
        "scores": {"count": scores_asked(config), "noise_multiplier": score_noise(config, scores_asked(config))},
        "noise_per_coordinate": plan.noise_per_coordinate,
        "expected_units_per_step": {str(n): plan.people_per_step(n) for n in _sizes(plan, config, people)},
        "warnings": warnings(plan, people),
        **shared_as_dict(shared_noise(config, plan)),
    }


def _epsilons(plan: Forecast, after: int) -> dict[str, float | None]:
    return {name: _finite(plan.epsilon_after(after, name)) for name in ("pld", "rdp")}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _print(plan: Forecast, config: RunConfig, scenario: str, counts: tuple[int | None, int | None]) -> None:
    console, (people, records) = Console(), counts

    def say(text: str = "") -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    say(f"{scenario}: what it will cost. Nothing was read, nothing is spent.\n")
    console.print(_pairs(_settings(plan, config)))
    say(f"\nEpsilon after a round, {wording.guarantee(plan.delta, plan.unit, plan.accountant, plan.noise)}:")
    console.print(_course(plan))
    if shared := shared_noise(config, plan):
        say_shared(console, shared)
    say(f"\nThe noise multiplier that all {wording.count(plan.rounds, 'round')} would need (now {_z(plan)}):")
    console.print(_pairs([(f"epsilon {target:g}", _multiplier(plan, target)) for target in TARGETS]))
    together = f" of {wording.count(plan.sites, 'site')}" if plan.sites > 1 else ""
    formula = "z C / (divisor sites)" if plan.sites > 1 else "z C / divisor"
    say(f"\nSignal and noise of one step{together}. On each coordinate: {formula} = {plan.noise_per_coordinate:.3g}.")
    say("Pull: all drawn units clipped and of one mind (N q C), against the noise in that direction (z C).")
    console.print(_signal(plan, _sizes(plan, config, people)))
    say("\nOther readings of the same run:")
    console.print(_pairs(_readings(plan, records)))
    sentences = warnings(plan, people)
    say("\nWarnings:" if sentences else "")
    for sentence in sentences:
        say(f"  ! {sentence}")


def _settings(plan: Forecast, config: RunConfig) -> list[tuple[str, str]]:
    event, given = plan.round_event, config.privacy.noise_multiplier
    origin = "given" if given else f"calibrated to epsilon {plan.target:g}"
    stages = ", ".join(f"{name} {rounds}" for name, rounds in plan.stages)
    in_the_sum = plan.unit == "site" and plan.noise != "server"
    lines = [
        ("protected", f"{plan.unit}: {UNITS[plan.unit].partition('; the noise is')[0]}"),
        ("noise", noise_words(plan.noise, plan.unit).short.removeprefix("noise ")),
        ("neighbours", next(iter(ADJACENCIES))),
        ("delta", wording.power(plan.delta)),
        ("noise multiplier z", f"{_z(plan)}, {origin}"),
        ("clip norm C", f"{plan.clip_norm:g}; noise on the sum: z C = {event.noise_multiplier * plan.clip_norm:.3g}"),
        ("sampling rate q", f"{event.sampling_rate:g}"),
        ("records of one unit", f"at most {_records(config)} in one step" if _records(config) else "all of a site's"),
        ("divisor", "the sites in the sum" if in_the_sum else f"{plan.divisor:g}, a public constant"),
        ("steps a round", f"{event.steps:,}"),
        ("rounds", f"{plan.rounds:,} ({stages})" if len(plan.stages) > 1 else f"{plan.rounds:,}"),
    ]
    if len(plan.stages) > 1:
        lines.append(("stages", f"{config.privacy.stages}: {STAGES[config.privacy.stages]}"))
    if scores_asked(config):
        z = score_noise(config, scores_asked(config))
        lines.append(
            ("scores", f"{scores_asked(config)} of held-out persons, noised with z = {z:.3g}: a group of its own")
        )
    return lines


def _records(config: RunConfig) -> int | None:
    """Most records of one unit in a step; None for a whole site."""
    return {"person": config.privacy.records_per_person, "record": 1}.get(config.privacy.unit)


def _course(plan: Forecast) -> Table:
    names = dict(zip(plan.ends, (name for name, _ in plan.stages), strict=True))
    table = Table("round", "adds up", "PLD", "RDP", "", box=None, padding=(0, 3))
    for after in plan.milestones():
        ended = f"end of {names[after]}" if after in names and len(plan.stages) > 1 else ""
        figures = [wording.epsilon_text(plan.epsilon_after(after, name)) for name in ("pld", "rdp")]
        table.add_row(f"{after:,}", wording.count(plan.counted(after), "round"), *figures, ended)
    return table


def _signal(plan: Forecast, sizes: list[int]) -> Table:
    units = "sites in a round" if plan.unit == "site" else f"{plan.unit}s at a site"
    table = Table(units, "in a step (N q)", "pull / noise", "", box=None, padding=(0, 3))
    for size in sizes:
        pull = plan.pull_over_noise(size)
        table.add_row(f"{size:,}", f"{plan.people_per_step(size):,.0f}", f"{pull:,.3g}", strength(pull))
    return table


def strength(pull: float) -> str:
    """N q / z in a word."""
    return next((word for bound, word in WORDS if pull < bound), "clear")


def _sizes(plan: Forecast, config: RunConfig, people: int | None) -> list[int]:
    if plan.unit == "site":
        return sorted({int(plan.divisor), config.sites.cohort or config.sites.count})
    return sorted({*PEOPLE, people} if people else PEOPLE)


def _several(plan: Forecast, records: int | None) -> list[int]:
    return sorted({*SEVERAL, *([records] if records else [])}) if plan.unit == "record" else []


def _readings(plan: Forecast, records: int | None) -> list[tuple[str, str]]:
    replaced = wording.epsilon_text(plan.replacing(plan.rounds))
    several = {k: wording.epsilon_text(plan.for_somebody_with(k)) for k in _several(plan, records)}
    return [
        ("replace-one", f"epsilon {replaced} if neighbours differ by the replacement of one {plan.unit}"),
        *((f"{k} records", f"epsilon {value} for somebody with {k} records") for k, value in several.items()),
    ]


def _multiplier(plan: Forecast, target: float) -> str:
    z = plan.multiplier_for(target)
    return "out of reach" if z is None else f"z = {z:.3g}"


def _z(plan: Forecast) -> str:
    return f"{plan.round_event.noise_multiplier:.3g}"


def _pairs(lines: list[tuple[str, str]]) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2))
    for name, value in lines:
        table.add_row(name, value)
    return table
