"""One self-contained page about a run: opens offline, loads nothing, prints on A4."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from llmchain_fl.atomic_file import atomic_write
from llmchain_fl.core.toml_file import parse_toml
from llmchain_fl.report import kept, plots, tables, wording
from llmchain_fl.report.readings import Readings
from llmchain_fl.report.spending import Spending
from llmchain_fl.report.template import PAGE, STYLE
from llmchain_fl.report.verdict import verdict
from llmchain_fl.run_dir import RunDir

PACKAGES = ("llmchain-fl", "torch", "transformers", "peft", "flwr", "opacus", "dp-accounting", "numpy")
LARGEST_EPSILON = 20.0
MOST_STAGES = 6

CAPTIONS = {
    "scores": "Held-out score of each task, measured on the global adapter before training (round 0) and after every "
    "round. Shaded: every other stage. A line that gets worse after its own stage shows forgetting.",
    "guards": f"What the guards told of themselves, round by round: the first {plots.MOST_PANELS} numbers that "
    "changed; the table has all. Shaded: every other stage.",
    "sites": "Latest score of the global adapter on each site's own held-out records, worst first; "
    "several tasks are averaged.",
    "epsilon": "Privacy spent so far by each site, round by round. It never falls.",
    "traffic": "Bytes in each round, summed over the sites.",
    "norms": "L2 norm of each site's update as it arrived, round by round. One line far above the others deserves a "
    "question to that site.",
}

WORDS = (
    ("site", "An organisation that holds records. Its records do not leave it; only updates of the adapter do."),
    ("round", "The adapter goes to the sites, each trains it on its own records, and the updates are combined."),
    ("stage", "A number of rounds in which one task is learned; stages follow each other."),
    ("held-out records", "Records that were not used for training."),
    ("learned (LA)", "Mean score of each task at the end of its own stage."),
    (
        "forgotten (F)",
        "Mean, over earlier tasks, of the best score at the end of an earlier stage minus the score now.",
    ),
    ("BWT", "Mean, over earlier tasks, of the score now minus the score when learned. Negative: forgotten."),
    ("epsilon, delta", "The two numbers of a differential privacy guarantee; smaller is stronger, for both."),
    ("unit", "What the guarantee protects: one record, or all records of one person or site."),
    ("accountant", "The method that computed epsilon (PLD is tighter, RDP an independent check)."),
)


def write_report(run_dir: RunDir) -> Path:
    """Writes ``report.html`` from the run's metrics, privacy and settings.

    Args:
        run_dir: a run, finished or not.

    Returns:
        The path of the page.

    Raises:
        RunError: the metrics or the privacy file are damaged.
    """
    text = _environment().from_string(PAGE).render(_context(run_dir))
    atomic_write(run_dir.report, text.encode("utf-8", errors="replace"))
    return run_dir.report


def _context(run_dir: RunDir) -> dict[str, Any]:
    """Everything the template names."""
    rows, privacy = run_dir.rows(), run_dir.read_privacy()
    run = Readings(rows)
    config = run_dir.config.read_text(encoding="utf-8", errors="replace")
    name, written = run_dir.path.resolve().name, datetime.fromtimestamp(run_dir.metrics.stat().st_mtime, UTC)
    lead, *rest = verdict(rows, privacy)
    spending = Spending.of(run, privacy)
    return {
        "style": Markup(STYLE),
        "title": _title(config) or name,
        "name": name,
        "date": f"{written.day} {written:%B %Y, %H:%M} UTC",
        "lead": lead,
        "stopped": run.stopped is not None,
        "sentences": [
            _labelled(sentence)
            for sentence in rest
            if len(run.stages) <= MOST_STAGES or not sentence.startswith("Learned, ")  # these stand below as well
        ],
        "numbers": tables.summary_table(rows, privacy),
        "stages": kept.verdicts(rows),
        "metric": run.metric,
        "tasks": run.tasks,
        "matrix": kept.matrix(run),
        "guards": kept.guard_lines(run),
        "probes": kept.probe_lines(run),
        "averaging": kept.averaging_lines(run),
        "plots": {key: Markup(svg) for key, svg in _plots(run, privacy).items()},
        "captions": CAPTIONS,
        "spending": spending,
        "spent": [_spent_row(spending, site) for site in spending.sites],
        "meaning": _meaning(spending),
        "mechanism": _mechanism(privacy),
        "refused": run.refusals,
        "aside": run.quarantines,
        "words": WORDS,
        "config": config,
        "versions": _versions(),
    }


def _environment() -> Environment:
    return Environment(autoescape=True, undefined=StrictUndefined)


def _plots(run: Readings, privacy: Mapping[str, Any]) -> dict[str, str]:
    return {
        "scores": plots.scores(run),
        "guards": plots.guards(run),
        "sites": plots.site_scores(run),
        "epsilon": plots.epsilon(run, privacy),
        "traffic": plots.traffic(run),
        "norms": plots.update_norms(run),
    }


def _title(config: str) -> str:
    title = parse_toml(config)[0].get("title", "")
    return title if isinstance(title, str) else ""


def _labelled(sentence: str) -> tuple[str, str]:
    """``Spent: epsilon ...`` -> (``Spent``, ``epsilon ...``); no label where there is no colon."""
    label, colon, text = sentence.partition(": ")
    return (label, text) if colon else ("", sentence)


def _spent_row(spending: Spending, site: str) -> dict[str, str | bool]:
    mine, over = spending.sites[site], spending.over(site)
    return {
        "site": site,
        "over": over,
        "epsilon": wording.epsilon(mine.epsilon),
        "rdp": wording.epsilon(mine.rdp) if math.isfinite(mine.rdp) else "–",
        "rounds": "–" if mine.rounds is None else f"{mine.rounds:,}",
        "steps": "–" if mine.steps is None else f"{mine.steps:,}",
        "target": "none set" if spending.target is None else "OVER THE TARGET" if over else "within",
    }


def _meaning(spending: Spending) -> str:
    """The guarantee of the site that has spent most, in plain words: odds change by at most e^epsilon."""
    if not spending.private or spending.highest is None:
        return "Differential privacy was asked for."
    epsilon, protects = spending.highest[1].epsilon, spending.protects
    if not math.isfinite(epsilon) or epsilon > LARGEST_EPSILON:
        return f"At the highest epsilon the guarantee says nothing useful about {protects}."
    factor = math.exp(epsilon)
    odds = f"{factor:,.2f}" if factor < 10 else f"{factor:,.0f}"
    many = " Somebody with several records is protected less." if spending.unit == "record" else ""
    return (
        f"For whoever sees the updates, the odds of guessing whether {protects} took part improve by a factor of at "
        f"most {odds} (e to the power of epsilon), apart from a chance of about {wording.power(spending.delta)}.{many}"
    )


def _mechanism(privacy: Mapping[str, Any]) -> str:
    known = [
        f"{name} {privacy[key]:g}"
        for key, name in (
            ("clip_norm", "clip norm C ="),
            ("noise_multiplier", "noise multiplier z ="),
            ("sampling_rate", "sampling rate q ="),
            ("steps_per_round", "steps per round:"),
        )
        if privacy.get(key) is not None
    ]
    known += [f"{key}: {privacy[key]}" for key in ("adjacency", "composition") if privacy.get(key)]
    return f"Mechanism: {', '.join(known)}." if known else ""


def _versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)
