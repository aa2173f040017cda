"""A whole comparison: check everything, play what is not finished, write what is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmchain_fl.atomic_file import atomic_write, write_json
from llmchain_fl.compare import plot
from llmchain_fl.compare.check import Checked, all_refused
from llmchain_fl.compare.folder import Folder, open_folder
from llmchain_fl.compare.outcome import Outcome
from llmchain_fl.compare.page import page
from llmchain_fl.compare.plan import Comparison
from llmchain_fl.compare.play import Job
from llmchain_fl.compare.spread import Groups
from llmchain_fl.compare.table import measures_of, tables_of
from llmchain_fl.compare.verdict import verdict
from llmchain_fl.compare.work import Play, Runner, Watch
from llmchain_fl.config.read import read_config
from llmchain_fl.config.write import to_toml
from llmchain_fl.report.figure import by_itself

PLOTS = {
    "scores-against-bytes": plot.scores_against_bytes,
    "learned-against-forgotten": plot.learned_against_forgotten,
    "learned-and-forgotten-by-epsilon": plot.against_epsilon,
}
CONTINUAL = ("learned-against-forgotten", "learned-and-forgotten-by-epsilon")


def play_comparison(
    comparison: Comparison, checked: Checked, path: Path, runner: Runner, play: Play, watch: Watch, command: str
) -> list[Outcome]:
    """Play the cells that are not finished yet and write the results.

    Args:
        comparison: what is asked.
        checked: its cells, from ``check_cells``.
        path: the folder, new or of this same comparison.
        runner: in this process or in several (``work.py``).
        play: plays one cell.
        watch: whoever looks on.
        command: the command line that does this again.

    Returns:
        Every outcome known in the folder, refused and failed ones of this call included.

    Raises:
        RunError: the folder holds something else, or somebody plays in it.
        ConfigError: every cell was refused.
    """
    folder = open_folder(path, comparison)
    with folder.held():
        folder.check_same(checked.configs)
        done = folder.finished()
        jobs = [
            Job(cell, folder.of(cell), to_toml(checked.configs[cell.slug]))
            for cell in checked.cells
            if cell.slug not in done
        ]
        played = runner(jobs, play, watch)
        known = {outcome.cell.slug: outcome for outcome in (*checked.refused, *played)} | folder.finished()
        if all(outcome.status == "refused" for outcome in known.values()):
            raise all_refused(list(known.values()))
        outcomes = list(known.values())
        write_results(comparison, outcomes, folder, command)
    return outcomes


def write_results(comparison: Comparison, outcomes: Sequence[Outcome], folder: Folder, command: str) -> None:
    """``results.json``, ``table.md``, the plots and ``compare.html``."""
    write_json(folder.results, results_of(comparison, outcomes))
    tables = tables_of(comparison, outcomes)
    said = [f"- {sentence}\n" for sentence in verdict(Groups.of(comparison, outcomes))]
    text = "\n".join([f"# {comparison.title}\n", *said, *(table.markdown() for table in tables)])
    atomic_write(folder.table, text.encode())
    wanted = [name for name in PLOTS if comparison.continual or name not in CONTINUAL]
    groups = Groups.of(comparison, outcomes)
    drawn = {name: PLOTS[name](groups) for name in wanted}
    finished = [outcome.cell for outcome in outcomes if outcome.status == "finished"]
    configs = [read_config(folder.of(cell) / "config.toml") for cell in finished]
    for name, svg in drawn.items():
        if svg:
            atomic_write(folder.plot(name), by_itself(svg).encode())
    atomic_write(folder.page, page(comparison, configs, outcomes, tables, drawn, command).encode())


def results_of(comparison: Comparison, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Every number of every cell and the means, for other programs; an epsilon never stands alone.

    Returns:
        ``comparison`` (what was asked), ``cells`` (one a run: labels, seed, settings, status, numbers, scores by round,
        epsilon), ``means`` (one a combination: mean, sd and n of each measure).
    """
    return {
        "comparison": {
            "title": comparison.title,
            "scenario": comparison.scenario,
            "score": comparison.score,
            "settings": list(comparison.settings),
            "axes": {axis.name: {k: list(v) for k, v in axis.values.items()} for axis in comparison.axes},
            "repeats": [axis.name for axis in comparison.repeats],
        },
        "cells": [outcome.as_json() for outcome in sorted(outcomes, key=lambda o: o.cell.slug)],
        "means": _means(comparison, outcomes),
    }


def _means(comparison: Comparison, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    names, means, groups = [axis.name for axis in comparison.shown], [], Groups.of(comparison, outcomes)
    measures = [measure for measure in measures_of(groups) if measure != "epsilon"]
    for key, group in groups.by_key.items():
        spent = [outcome.epsilon for outcome in group if outcome.epsilon]
        worst = max(spent, key=lambda epsilon: epsilon.value, default=None)
        means.append(
            {
                "labels": dict(zip(names, key, strict=True)),
                "numbers": {measure: groups.spread(key, measure)._asdict() for measure in measures},
                "highest_epsilon": worst._asdict() if worst else None,
            }
        )
    return means
