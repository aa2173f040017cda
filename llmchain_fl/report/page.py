"""One self-contained page about a run: opens offline, loads nothing, fits a phone, prints on A4."""

from __future__ import annotations

import math
import platform
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from markupsafe import Markup

from llmchain_fl.atomic_file import atomic_write
from llmchain_fl.core.toml_file import parse_toml
from llmchain_fl.report import kept, plots, references, stages, tables, verdict, wording
from llmchain_fl.report.body import BODY
from llmchain_fl.report.headline import headline
from llmchain_fl.report.readings import Readings
from llmchain_fl.report.site_names import with_names
from llmchain_fl.report.spending import Spending
from llmchain_fl.report.suite import FILE, read_suite, suite_lines
from llmchain_fl.report.template import date_text, render
from llmchain_fl.run_dir import RunDir

PACKAGES = ("llmchain-fl", "torch", "transformers", "peft", "flwr", "opacus", "dp-accounting", "numpy")
MOST_ROWS = 100
"""Of a table with a row a site, or an event."""
MARKS = {True: "yes", False: "no", None: "open"}

CAPTIONS = {
    "scores": "Held-out score of each task, measured on the global adapter before training (round 0) and after every "
    "round. Grey lines: what it is held against. Shaded: every other stage. A line that gets worse after its own stage "
    "shows forgetting.",
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
    ("stage", "A number of rounds in which one task is trained; stages follow each other."),
    ("held-out records", "Records that were not used for training."),
    ("untrained", "The adapter before round 1: the base model as it is, with a head that has seen nothing."),
    (
        "margin",
        "What chance alone can make of a difference on so few records, 19 times of 20: of the same records one by one "
        "where the run compared them so, else of two draws. A change within it is not called learning or forgetting.",
    ),
    (
        "closed-form head",
        "Ridge regression on the outputs of the frozen base, from all training records in one place (or those of one "
        "site), without privacy: no rounds, no adapter, seconds of work.",
    ),
    ("LA", "Mean score of each task at the end of its own stage."),
    ("F", "Mean, over earlier tasks, of the best score at the end of an earlier stage minus the score now."),
    ("BWT, FWT", "Mean change of a task after its own stage, and before it."),
    ("epsilon, delta", "The two numbers of a differential privacy guarantee; smaller is stronger, for both."),
    ("unit", "What the guarantee protects: one record, or all records of one person or site."),
    ("accountant", "The method that computed epsilon (PLD is tighter, RDP an independent check)."),
)


def write_report(run_dir: RunDir) -> Path:
    """Write ``report.html`` from the run's metrics, privacy and settings.

    Args:
        run_dir: a run, finished or not.

    Returns:
        The path of the page.

    Raises:
        RunError: the metrics or the privacy file are damaged.
    """
    text = render(BODY, _context(run_dir), kind="Run report")
    atomic_write(run_dir.report, text.encode("utf-8", errors="replace"))
    return run_dir.report


def _context(run_dir: RunDir) -> dict[str, Any]:
    """Everything the template names."""
    rows, privacy = with_names(run_dir)
    run = Readings(rows)
    config = run_dir.config.read_text(encoding="utf-8", errors="replace")
    head = headline(parse_toml(config)[0])
    name, written = run_dir.path.resolve().name, datetime.fromtimestamp(run_dir.metrics.stat().st_mtime, UTC)
    spending, suite = Spending.of(run, privacy), read_suite(run_dir.path / FILE)
    return {
        "title": head.title,
        "sub": f"Run {name}, results as of {date_text(written)}",
        "foot": f"All numbers are from the run directory {name}: metrics.jsonl, privacy.json and config.toml.",
        "words_of_author": head.words,
        "badges": head.badges,
        "stopped": verdict.stopped(run),
        "lead": verdict.outcome(run),
        "answers": [(answer, MARKS[answer.good]) for answer in verdict.answers(rows, privacy)],
        "numbers": tables.summary_table(rows, privacy),
        "stages": stages.stages_told(rows),
        "metric": run.metric,
        "unit": run.score.unit,
        "tasks": run.tasks,
        "matrix": kept.matrix(run),
        "guards": kept.guard_lines(run),
        "probes": kept.probe_lines(run),
        "averaging": kept.averaging_lines(run),
        "plots": {key: Markup(svg) for key, svg in _plots(run, privacy).items()},
        "captions": CAPTIONS,
        "who": _who(run),
        "suite": suite_lines(suite) if suite else [],
        "who_more": max(0, len(run.updates) - MOST_ROWS),
        "many": _many(run),
        "spending": spending,
        "spent": [_spent_row(spending, site) for site in _most_spent(spending)],
        "spent_more": max(0, len(spending.sites) - MOST_ROWS),
        "mechanism": _mechanism(privacy),
        "refused": run.refusals[:MOST_ROWS],
        "refused_more": max(0, len(run.refusals) - MOST_ROWS),
        "aside": run.quarantines[:MOST_ROWS],
        "aside_more": max(0, len(run.quarantines) - MOST_ROWS),
        "words": WORDS,
        "config": config,
        "versions": versions(),
    }


def versions() -> str:
    """Of Python and of the packages that a page is made with."""
    lines = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            lines.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(lines)


def _plots(run: Readings, privacy: Mapping[str, Any]) -> dict[str, str]:
    return {
        "scores": plots.scores(run),
        "guards": plots.guards(run),
        "sites": plots.site_scores(run),
        "epsilon": plots.epsilon(run, privacy),
        "traffic": plots.traffic(run),
        "norms": plots.update_norms(run),
    }


def _who(run: Readings) -> list[tuple[str, str, str, str, str]]:
    """(site, rounds with an update, refused, not connected, own score) of each site; of many, of the worst by these."""
    refused = Counter(site for _, site, _ in run.refusals)
    away = Counter(str(row["site"]) for row in run.rows if row["metric"] == "away")
    own = references.site_scores(run)
    sites = list(run.updates)
    if len(sites) > MOST_ROWS:
        best = math.inf
        sites.sort(key=lambda site: (-refused[site], -away[site], run.score.sign * own.get(site, best), site))
    return [
        (
            site,
            f"{len(run.updates[site]):,}",
            f"{refused[site]:,}",
            f"{away[site]:,}",
            wording.score(own[site], run.score.unit) if site in own else "–",
        )
        for site in sites[:MOST_ROWS]
    ]


def _many(run: Readings) -> list[tuple[str, ...]]:
    """(number, round, sites, lowest, lower quarter, median, upper quarter, highest, where it is highest), as last told
    of very many sites together."""
    table = []
    for metric, rounds in run.many.items():
        row = rounds[max(rounds)]
        cuts = [wording.size(value) if metric.startswith("bytes") else f"{value:.4g}" for value in row["quartiles"]]
        where = ", ".join(row["largest"]) if row["quartiles"][0] != row["quartiles"][-1] else "all alike"
        table.append((metric.replace("_", " "), f"{row['round']:,}", f"{row['n']:,}", *cuts, where))
    return table


def _most_spent(spending: Spending) -> list[str]:
    """The sites in the order of their names; of many, those that have spent most."""
    if len(spending.sites) <= MOST_ROWS:
        return list(spending.sites)

    def spent(site: str) -> float:
        epsilon = spending.sites[site].epsilon
        return epsilon if math.isfinite(epsilon) else math.inf

    return sorted(spending.sites, key=lambda site: (-spent(site), site))[:MOST_ROWS]


def _spent_row(spending: Spending, site: str) -> dict[str, str | bool]:
    mine, over = spending.sites[site], spending.over(site)
    return {
        "site": site,
        "over": over,
        "epsilon": wording.epsilon_text(mine.epsilon),
        "rdp": wording.epsilon_text(mine.rdp) if math.isfinite(mine.rdp) else "–",
        "rounds": "–" if mine.rounds is None else f"{mine.rounds:,}",
        "steps": "–" if mine.steps is None else f"{mine.steps:,}",
        "target": "none set" if spending.target is None else "OVER THE TARGET" if over else "within",
    }


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
