"""What a run came to, in sentences for people who do not read plots.

Sources of the terms: forgetting as in Chaudhry et al. 2018 (best at the end of an earlier stage minus now).
A change of accuracy is called clear only where it is larger than two standard errors of the difference,
``2 sqrt(p1 (1 - p1) / n + p2 (1 - p2) / n)``. Both scores come from the same n records, which would allow a
sharper test; without the single answers this one errs towards "cannot be told apart".

==============================  ==================================================================
the run                         what is said
==============================  ==================================================================
no score yet                    that nothing was scored
one stage                       that nothing earlier could be forgotten
accuracy                        percent, differences in points
loss                            lower is better; "better" and "worse" instead of signs
privacy off                     "no differential privacy: updates are not protected"
privacy on, nothing booked      that nothing was spent yet
one site                        no worst site
in the middle                   which stage is unfinished
ended before its plan did       that first, with the reason
rounds in which nobody trained  which, and why; they do not count as rounds done
==============================  ==================================================================
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from llmchain_fl.report import tables, wording
from llmchain_fl.report.readings import LOWER_IS_BETTER, Readings, Row, Stage, total
from llmchain_fl.report.spending import Spending

__all__ = ["LOWER_IS_BETTER", "doubt", "stage_verdicts", "verdict"]


def verdict(rows: Sequence[Row], privacy: Mapping[str, Any]) -> list[str]:
    """Plain sentences: how a run ended early, the outcome, what was learned, forgotten, spent and sent, and the rest.

    Args:
        rows: the run's rows (``RunDir.rows``).
        privacy: ``privacy.json`` (``RunDir.read_privacy``), or an empty dict.
    """
    run = Readings(rows)
    results = [_stopped(run), _outcome(run), _final(run), *_learned(run), _forgotten(run), _worst_site(run)]
    costs = [_spent(run, privacy), _sent(run), _skipped(run), _refused(run), _aside(run), _away(run)]
    return [sentence for sentence in results + costs if sentence]


def stage_verdicts(rows: Sequence[Row]) -> list[str]:
    """One sentence a stage: its score before, when learned, and now."""
    run = Readings(rows)
    metric, seen = run.metric, run.stages
    sentences = []
    for stage in seen:
        learned = run.after(stage, stage.name)
        text = f"{_title(stage)}: {_from_to(run, run.before(stage), learned)} when learned"
        if stage is not seen[-1]:
            now = run.after(seen[-1], stage.name)
            text += f"; now {wording.score(now, metric)} ({_compared(run, stage, learned, now)})"
        elif run.unfinished:
            text = f"{_title(stage)}: not finished; {_from_to(run, run.before(stage), learned)} so far"
        sentences.append(text + ".")
    return sentences


def _stopped(run: Readings) -> str:
    if run.stopped is None:
        return ""
    done, planned, why = run.stopped
    return f"STOPPED after {done} of {wording.count(planned, 'round')}: {why}."


def _skipped(run: Readings) -> str:
    by_reason: dict[str, list[str]] = {}
    for number, why in sorted(run.skipped.items()):
        by_reason.setdefault(why, []).append(str(number))
    told = "; ".join(f"{why} in round {', '.join(numbers)}" for why, numbers in by_reason.items())
    return f"Rounds without training: {told}." if told else ""


def _outcome(run: Readings) -> str:
    metric, seen = run.metric, run.stages
    now, start = tables.average(run), tables.average_before(run)
    if not run.tasks:
        return "Nothing has been scored yet: the run has written no score on held-out records."
    ran = f"After {wording.count(run.rounds - len(run.skipped), 'round')}"
    ran += f" in {len(seen)} stages" if len(seen) > 1 else ""
    ran += f" at {wording.count(len(run.sites), 'site')}" if run.sites else ""
    mean = " on average over the stages" if len(seen) > 1 else ""
    if run.lower_is_better:
        text = f"{ran}, the loss on held-out records is {wording.score(now, metric)}{mean} (lower is better)"
    else:
        text = f"{ran}, the model answers {wording.score(now, metric)} of the held-out records correctly{mean}"
    return text + (f"; before training it was {wording.score(start, metric)}." if math.isfinite(start) else ".")


def _final(run: Readings) -> str:
    if not run.kept_apart:
        return ""
    mean = sum(run.kept_apart.values()) / len(run.kept_apart)
    return f"Final check: {_what(run, mean)} the test records that were kept apart until the end."


def _learned(run: Readings) -> list[str]:
    sentences = []
    for stage in run.stages:
        old, new = run.before(stage), run.after(stage, stage.name)
        pending = ", not finished" if stage is run.stages[-1] and run.unfinished else ""
        clear = f" ({_compared(run, stage, old, new)})" if math.isfinite(old) and math.isfinite(new) else ""
        name = "Learned" if len(run.stages) == 1 else f"Learned, {stage.label}"
        sentences.append(f"{name}{pending}: {_from_to(run, old, new)}{clear}.")
    return sentences


def _forgotten(run: Readings) -> str:
    metric, seen = run.metric, run.stages
    if len(seen) < 2:
        return "Forgotten: there was one stage, so nothing earlier could be forgotten." if seen else ""
    measured = [(stage, drop) for stage, drop in tables.drops(run) if math.isfinite(drop)]
    if not measured:
        return "Forgotten: not measured."
    overall = tables.forgotten(run)
    mean = overall if math.isfinite(overall) else sum(drop for _, drop in measured) / len(measured)
    stage, drop = max(measured, key=lambda item: item[1])
    if drop <= 0:
        return "Forgotten: nothing; every earlier stage scores as well as it ever did, or better."
    now = run.after(seen[-1], stage.name)
    best = now - drop if run.lower_is_better else now + drop
    fell = f"{stage.label}, from {wording.score(best, metric)} at best to {wording.score(now, metric)}"
    unsure = doubt(run, stage, best, now)
    known = f" ({unsure})" if unsure else ""
    average = wording.change(abs(mean), metric, signed=False)
    if run.lower_is_better:
        moved = f"the loss of earlier stages {'rose' if mean >= 0 else 'fell'} by {average} on average"
    else:
        moved = f"earlier stages {'lost' if mean >= 0 else 'gained'} {average} on average"
    return f"Forgotten: {moved}; the most was forgotten in {fell}{known}."


def _spent(run: Readings, privacy: Mapping[str, Any]) -> str:
    spending = Spending.of(run, privacy)
    if not spending.private:
        return "Spent: no differential privacy: updates are not protected."
    if spending.highest is None:
        return "Spent: differential privacy was asked for; no site has spent any of it yet."
    site, most = spending.highest
    text = f"Spent: epsilon {wording.epsilon(most.epsilon)} at most, at {site} ({spending.guarantee})"
    if spending.target is None:
        return text + "; no target was set."
    over = [name for name in spending.sites if spending.over(name)]
    if over:
        return f"{text}; OVER the target of {spending.target:g} at {', '.join(over)}."
    return f"{text}; every site is within the target of {spending.target:g}."


def _sent(run: Readings) -> str:
    up, down = (total(run.bytes_per_round(metric)) for metric in ("bytes_up", "bytes_down"))
    if not up and not down:
        return ""
    return f"Sent: {wording.size(up)} from the sites and {wording.size(down)} to them, over the whole run."


def _worst_site(run: Readings) -> str:
    metric = run.metric
    scores = {site: value for site, value in run.site_scores.items() if math.isfinite(value)}
    if len(scores) < 2:
        return ""
    ranked = sorted(scores, key=lambda site: run.gain(0.0, scores[site]))
    worst, best = ranked[0], ranked[-1]
    return (
        f"Worst served: {worst}, {_what(run, scores[worst])} its own held-out records; "
        f"best served: {best}, {wording.score(scores[best], metric)}."
    )


def _aside(run: Readings) -> str:
    times = {site: often for _, site, _, until, often in run.quarantines if until}
    named = ", ".join(f"{site} ({wording.count(often, 'time')})" for site, often in sorted(times.items()))
    return f"Set aside after failing rounds in a row: {named}." if times else ""


def _away(run: Readings) -> str:
    times = Counter(str(row["site"]) for row in run.rows if row["metric"] == "away")
    named = ", ".join(f"{site} in {wording.count(often, 'round')}" for site, often in sorted(times.items()))
    return f"Not connected: {named}." if times else ""


def _refused(run: Readings) -> str:
    refused = run.refusals
    from_sites = ", ".join(sorted({site for _, site, _ in refused}))
    return f"Refused: {wording.count(len(refused), 'update')}, from {from_sites}." if refused else ""


def _title(stage: Stage) -> str:
    return stage.label[0].upper() + stage.label[1:]


def _what(run: Readings, value: float) -> str:
    score = wording.score(value, run.metric)
    return f"a loss of {score} on" if run.lower_is_better else f"right on {score} of"


def _from_to(run: Readings, old: float, new: float) -> str:
    if not math.isfinite(new):
        return wording.NOT_MEASURED
    what = "loss " if run.lower_is_better else ""
    start = f"from {wording.score(old, run.metric)} to " if math.isfinite(old) else ""
    return what + start + wording.score(new, run.metric)


def _compared(run: Readings, stage: Stage, old: float, new: float) -> str:
    """``7.8 points worse``, with a doubt where the records are too few to tell."""
    metric = run.metric
    gain = run.gain(old, new)
    if not math.isfinite(gain):
        return wording.NOT_MEASURED
    if not gain:
        return "unchanged"
    text = f"{wording.change(abs(gain), metric, signed=False)} {'better' if gain > 0 else 'worse'}"
    unsure = doubt(run, stage, old, new)
    return f"{text}, {unsure}" if unsure else text


def doubt(run: Readings, stage: Stage, old: float, new: float) -> str:
    """``within the range of chance for 101 records``, or "" where two scores of the stage's task differ clearly."""
    n = run.records(stage.name)
    if run.metric != "accuracy" or not n or not all(0 <= p <= 1 for p in (old, new)):
        return ""
    margin = 2 * math.sqrt((old * (1 - old) + new * (1 - new)) / n)
    return f"within the range of chance for {n:,} records" if abs(new - old) < margin else ""
