"""A run's key numbers as plain data: for the page, and for the summary in the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.continual import metrics
from llmchain_fl.continual.transfer import fwt
from llmchain_fl.report import wording
from llmchain_fl.report.change import Change, Measured, mean
from llmchain_fl.report.readings import Readings, Row, Stage, total
from llmchain_fl.report.references import kept_apart
from llmchain_fl.report.spending import Spending


def summary_table(rows: Sequence[Row], privacy: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, value) of the numbers a reader asks for first; what was not measured is left out.

    Args:
        rows: the run's rows.
        privacy: ``privacy.json``, or an empty dict.
    """
    run = Readings(rows)
    metric, unit, seen = run.metric, run.score.unit, run.stages
    ended = [] if run.stopped is None else [("Ended", f"before its plan, {run.stopped[0]} of {run.stopped[1]} rounds")]
    done = run.rounds - len(run.skipped)
    label = f"Average {metric}" if len(seen) > 1 else metric.capitalize()
    table = [
        *ended,
        ("Rounds", f"{done:,}" + (f" in {wording.count(len(seen), 'stage')}" if len(seen) > 1 else "")),
        ("Sites", f"{run.site_count:,}"),
        (f"{label}, untrained", run.start.text(unit)),
        (f"{label}, now", run.now.text(unit)),
    ]
    if apart := kept_apart(run):
        table.append((f"{label}, records kept for the end", apart.text(unit)))
    if len(seen) > 1:
        table += [(title, _written(value, kind, unit)) for title, kind, value in of_stream(run)[1:]]
    refused = run.refusals
    table += [("Epsilon, highest of the sites", _epsilon(run, privacy)), *_costs(run)]
    return [*table, ("Refused updates", f"{len(refused):,}")]


def compare_table(rows_a: Sequence[Row], rows_b: Sequence[Row], names: tuple[str, str]) -> list[tuple[str, ...]]:
    """Two runs side by side: a heading, then (name, value of a, value of b, b minus a with its margin), all text.

    Args:
        rows_a: rows of the first run, such as the one without a guard.
        rows_b: rows of the second run.
        names: how the two are called in the heading.
    """
    run_a, run_b = Readings(rows_a), Readings(rows_b)
    unit = run_a.score.unit
    table: list[tuple[str, ...]] = [("", *names, "difference")]
    for (title, kind, a), (_, _, b) in zip(of_stream(run_a, gaps=True), of_stream(run_b, gaps=True), strict=True):
        gap = Measured(b.value - a.value, math.hypot(a.half, b.half))
        table.append((title, _written(a, kind, unit), _written(b, kind, unit), _written(gap, "change", unit)))
    table.append(("Epsilon, highest of the sites", _epsilon(run_a, {}), _epsilon(run_b, {}), ""))
    megabytes = [sent(run) / 1e6 for run in (run_a, run_b)]
    return [*table, ("Sent, MB", *(f"{mb:.2f}" for mb in megabytes), f"{megabytes[1] - megabytes[0]:+.2f}")]


def of_stream(run: Readings, *, gaps: bool = False) -> list[tuple[str, str, Measured]]:
    """(title, "score", "drop" or "change", value with its half-width) of the numbers of a whole stream.

    Args:
        run: the run.
        gaps: also those that were not measured.
    """
    own = [run.from_own_end(stage, run.stages[-1]) for stage in run.stages[:-1]]
    numbers = [
        ("Average score", "score", Measured(average(run), run.now.half)),
        ("At the end of its own stage (LA)", "score", Measured(learned(run), _half_learned(run))),
        ("Below its best since (F)", "drop", Measured(forgotten(run), _margin([change for _, change in drops(run)]))),
        ("Change since its own stage (BWT)", "change", Measured(backward(run), _margin(own))),
        ("Change before its own stage (FWT)", "change", Measured(forward(run))),
    ]
    return [each for each in numbers if gaps or each[2].there or each[0].endswith("(F)")]


def _half_learned(run: Readings) -> float:
    return mean([run.after(stage, stage.name) for stage in run.stages]).half


def _margin(changes: Sequence[Change]) -> float:
    """The margin of the mean of some changes."""
    return math.sqrt(math.fsum(change.margin**2 for change in changes)) / len(changes) if changes else math.nan


def _written(measured: Measured, kind: str, unit: str) -> str:
    if kind == "score" or not measured.there:
        return measured.text(unit)
    text = wording.change(measured.value, unit, signed=kind == "change")
    if not math.isfinite(measured.half):
        return text
    return f"{text} ± {wording.change(measured.half, unit, signed=False).removesuffix(' points')}"


def average(run: Readings) -> float:
    """A_T: the mean score, at the end, of the stages that have begun; with none begun, the score before training."""
    return _of_r(run, "average_accuracy") if run.stages else average_before(run)


def average_before(run: Readings) -> float:
    """The mean score of the same tasks before training (round 0); NaN where it was not measured."""
    return run.start.value


def learned(run: Readings) -> float:
    """LA: the mean score of each stage's task when it had just been learned."""
    return _of_r(run, "la")


def forgotten(run: Readings) -> float:
    """F: mean over earlier stages of best so far minus now; positive is worse, for a loss too."""
    return _of_r(run, "forgetting")


def backward(run: Readings) -> float:
    """BWT: mean over earlier stages of now minus when learned; negative is worse, for a loss too."""
    return _of_r(run, "bwt")


def forward(run: Readings) -> float:
    """FWT: mean over later stages of the score just before a stage minus that before any training; positive is better.

    Over the stages that have ended; NaN where not measured.
    """
    seen = [stage.name for stage in run.ended]
    cells = [[run.r.get((stage.index, name), math.nan) for name in seen] for stage in run.ended]
    if not cells:
        return math.nan
    sign = -1.0 if run.lower_is_better else 1.0
    start = [dict(run.curve(name)).get(0, math.nan) for name in seen]
    return fwt(sign * np.array(cells), [sign * value for value in start])


def drops(run: Readings) -> list[tuple[Stage, Change]]:
    """Each earlier stage with the change from its best score at the end of a stage before the last, to now.

    The terms of :func:`llmchain_fl.continual.metrics.forgetting`, one by one; those not measured are left out.
    """
    changes = []
    for stage in run.stages[:-1]:
        ended = [other for other in run.stages[:-1] if run.after(other, stage.name).there]
        ended = [other for other in ended if (other.index, stage.name) in run.r]
        if ended:
            best = max(ended, key=lambda other: run.score.sign * run.after(other, stage.name).value)
            new, own = run.after(run.stages[-1], stage.name), "taught" if best is stage else ""
            changes.append((stage, run.changed(stage.name, run.after(best, stage.name), new, own, run.stages[-1].last)))
    return [(stage, change) for stage, change in changes if change.new.there]


def sent(run: Readings) -> float:
    """All bytes of the run, up and down."""
    return total_bytes(run, "bytes_up") + total_bytes(run, "bytes_down")


def total_bytes(run: Readings, metric: str) -> float:
    """``bytes_up`` or ``bytes_down`` of the whole run."""
    return total(run.bytes_per_round(metric))


def _square(run: Readings) -> NDArray[np.float64]:
    """R for the stages that have begun, T x T, higher is better: a loss is negated. NaN where not measured."""
    seen, cells = run.stages, run.r
    matrix = np.full((len(seen), len(seen)), np.nan)
    for i, stage in enumerate(seen):
        for j, task in enumerate(seen):
            last = stage is seen[-1]
            matrix[i, j] = run.after(stage, task.name).value if last else cells.get((stage.index, task.name), math.nan)
    return -matrix if run.lower_is_better else matrix


def _of_r(run: Readings, name: str) -> float:
    """One of ``continual.metrics.METRICS``, in the score's own direction; as recorded where R has gaps."""
    if not run.stages:
        return math.nan
    value = metrics.METRICS[name](_square(run))
    if not math.isfinite(value):
        recorded = run.run_curve(name.replace("accuracy", run.metric))
        return recorded[-1][1] if recorded else math.nan
    is_score = name in ("average_accuracy", "la")
    return -value if is_score and run.lower_is_better else value


def _costs(run: Readings) -> list[tuple[str, str]]:
    up, down = (total_bytes(run, metric) for metric in ("bytes_up", "bytes_down"))
    seconds = total(run.run_curve("seconds"))
    speed = [value for _, value in run.run_curve("tokens_per_second") if math.isfinite(value)]
    return [
        *([("Sent by the sites", wording.size(up))] if up else []),
        *([("Sent to the sites", wording.size(down))] if down else []),
        *([("Time of all rounds", wording.duration(seconds))] if seconds else []),
        *([("Speed", f"{fmean(speed):,.0f} tokens per second")] if speed else []),
    ]


def _epsilon(run: Readings, privacy: Mapping[str, Any]) -> str:
    spending = Spending.of(run, privacy)
    if not spending.private:
        return "none (no differential privacy)"
    if spending.highest is None:
        return "nothing spent yet"
    return wording.epsilon_text(spending.highest[1].epsilon, spending.guarantee)
