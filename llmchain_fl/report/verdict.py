"""What a run came to, as answers to the five questions of whoever reads only the page. No drawing.

Every change names what it is a change from and carries the margin of chance (``report/change.py``).

==============================  ==================================================================
the run                         what is said
==============================  ==================================================================
no score yet                    that nothing was scored
a reference is clearly better   no, with the reference that is furthest ahead
within chance of one            not shown, with that reference
no margin is known              nothing is claimed
privacy off                     no: nothing limits what updates and adapter give away
privacy on, nothing booked      that nothing was spent yet
one site                        no lowest site
ended before its plan did       that first, with the reason
rounds in which nobody trained  which, and why; they do not count as rounds done
==============================  ==================================================================
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmchain_fl.report import references, stages, wording
from llmchain_fl.report.change import Change
from llmchain_fl.report.next_steps import next_steps
from llmchain_fl.report.readings import Readings, Row
from llmchain_fl.report.spending import Spending
from llmchain_fl.report.tables import total_bytes

MOST_NAMED = 20
"""Sites that one sentence names."""


@dataclass(frozen=True)
class Answer:
    """One of the five: what is asked, the answer in one sentence, and what it rests on; ``good`` None: open."""

    question: str
    short: str
    good: bool | None
    lines: list[str]


def answers(rows: Sequence[Row], privacy: Mapping[str, Any]) -> list[Answer]:
    """The five answers, in the order in which they are asked.

    Args:
        rows: the run's rows (``RunDir.rows``).
        privacy: ``privacy.json`` (``RunDir.read_privacy``), or an empty dict.
    """
    run = Readings(rows)
    spending = Spending.of(run, privacy)
    return [
        _good_enough(run),
        _better_than_alone(run),
        _who(run),
        _private_enough(spending),
        Answer("What next?", *next_steps(run, spending)),
    ]


def verdict(rows: Sequence[Row], privacy: Mapping[str, Any]) -> list[str]:
    """The same as plain sentences; how a run ended early stands first."""
    run = Readings(rows)
    heads = [stages.came_to(run, stage) for stage in run.stages]
    sentences = [sentence for answer in answers(rows, privacy) for sentence in (answer.short, *answer.lines)]
    return [sentence for sentence in (stopped(run), outcome(run), *heads, *sentences) if sentence]


def stopped(run: Readings) -> str:
    """How the run ended before its plan did; "" where it did not."""
    if run.stopped is None:
        return ""
    done, planned, why = run.stopped
    return f"STOPPED after {done} of {wording.count(planned, 'round')}: {why}."


def outcome(run: Readings) -> str:
    """The score as it is, and what it is a score of."""
    if not run.tasks:
        return "Nothing has been scored yet: the run has written no score on held-out records."
    seen, unit = run.stages, run.score.unit
    ran = f"After {wording.count(run.rounds - len(run.skipped), 'round')}"
    ran += f" in {len(seen)} stages" if len(seen) > 1 else ""
    ran += f" at {wording.count(run.site_count, 'site')}" if run.site_count else ""
    mean = " on average over the stages" if len(seen) > 1 else ""
    way = " (lower is better)" if run.lower_is_better else ""
    return f"{ran}, the {run.metric} on held-out records is {run.now.text(unit)}{mean}{way}."


def _good_enough(run: Readings) -> Answer:
    question = "Is it good enough to use?"
    if not run.tasks or not run.now.there:
        return Answer(question, "Not known: there is no score on held-out records.", None, [])
    against = {references.NAMES[name]: change for name, change in references.against(run).items()}
    lines = [f"It is {change.than(name)}." for name, change in against.items()]
    short, good = _held_against(against)
    return Answer(question, short, good, [*_final(run), *lines, *stages.forgotten(run), *_weakest(run)])


def _held_against(against: Mapping[str, Change]) -> tuple[str, bool | None]:
    """The reference that is furthest ahead decides, of those that are clearly ahead."""
    if not against:
        return "Not known: there is nothing to hold the score against.", None
    if ahead := {name: change for name, change in against.items() if change.clear < 0}:
        name, change = min(ahead.items(), key=lambda item: item[1].gain)
        reached = wording.score(change.old.value, change.metric.unit)
        lost = wording.change(abs(change.gain), change.metric.unit, signed=False)
        margin = wording.change(change.margin, change.metric.unit, signed=False).removesuffix(" points")
        return f"No: {name} reaches {reached}, {lost} better than this model (margin {margin}).", False
    if any(not math.isfinite(each.margin) for each in against.values()):
        return "Not known: the margin of chance was not written, so no comparison is made.", None
    if unsure := [name for name, each in against.items() if each.clear == 0]:
        return f"Not shown: it is within chance of {' and '.join(unsure)}.", None
    better = ", ".join(against)
    return f"It is clearly better than {better}. Whether that is enough is for its user to say.", True


def _final(run: Readings) -> list[str]:
    score = references.kept_apart(run)
    if score is None:
        return []
    return [f"On test records that were kept apart until the end its {run.metric} is {score.text(run.score.unit)}."]


def _weakest(run: Readings) -> list[str]:
    """The label that is answered worst: a mean hides it."""
    recalls = references.recalls(run)
    if not recalls:
        return []
    (task, label), (value, n) = min(recalls.items(), key=lambda item: item[1])
    macro = [curve[-1][1] for task in run.tasks if (curve := run.other_curve("macro_f1", task))]
    average = f"Macro-F1 is {wording.score(sum(macro) / len(macro), wording.SHARE)}. " if macro else ""
    where = f" of {task}" if len(run.tasks) > 1 else ""
    return [
        f"{average}The label answered worst is {label}{where}: {wording.score(value, wording.SHARE)} of its "
        f"{wording.count(n, 'record') if n else 'records'}."
    ]


def _better_than_alone(run: Readings) -> Answer:
    question = "Is it better than my site alone?"
    alone = references.alone(run)
    lines = _lowest_site(run)
    if not alone:
        short = "Not known: no site has been measured alone. A simulation measures it; a site can with `evaluate`."
        return Answer(question, short, None, lines)
    clear = Counter(change.clear for change in alone.values())
    baseline = "a closed-form head on the frozen base from one site's own records"
    counts = f"better at {clear[1]}, within chance at {clear[0]}, worse at {clear[-1]} of {len(alone)} sites"
    worst = min(alone, key=lambda site: alone[site].gain)
    lines.insert(0, f"At {worst}, where alone does best, the model is {alone[worst].than('its own records alone')}.")
    part = references.drawn(run)
    lines[1:1] = [part] if part else []
    good = True if clear[1] == len(alone) and not part else False if clear[-1] else None
    return Answer(question, f"Against {baseline}, the common model is {counts}.", good, lines)


def _lowest_site(run: Readings) -> list[str]:
    scores = {site: value for site, value in references.site_scores(run).items() if math.isfinite(value)}
    if len(scores) < 2:
        return []
    ranked = sorted(scores, key=lambda site: run.score.sign * scores[site])
    low, high = ranked[0], ranked[-1]
    texts = [f"{wording.score(scores[site], run.score.unit)} at {site}" for site in (low, high)]
    return [f"On their own held-out records sites score from {texts[0]}, the worst served, to {texts[1]}."]


def _who(run: Readings) -> Answer:
    done = run.rounds - len(run.skipped)
    each = [len(rounds) for rounds in run.updates.values() if rounds]
    together = [row["n"] for row in run.many.get("bytes_up", {}).values()]
    took = max(len(each), *together, 0)
    short = f"{wording.count(took, 'site')} sent updates in {wording.count(done, 'round')}."
    if each and min(each) != max(each):
        short = f"{short[:-1]}, {min(each)} to {max(each)} rounds each."
    lines = [_refused(run), _aside(run), _away(run), _skipped(run), _sent(run)]
    return Answer("Who took part?", short if took else "Nobody yet.", None, [line for line in lines if line])


def _private_enough(spending: Spending) -> Answer:
    question = "Is it private enough, and who says so?"
    if not spending.private:
        short = "No differential privacy: nothing limits what updates, or the adapter, give away about a record."
        return Answer(question, short, False, [])
    if spending.highest is None:
        return Answer(question, "Differential privacy was asked for; no site has spent any of it yet.", None, [])
    site, most = spending.highest
    text = wording.epsilon_text(most.epsilon, spending.guarantee)
    lines = [line for line in (spending.meaning, spending.with_others, spending.who_says) if line]
    if spending.target is None:
        return Answer(question, f"Epsilon {text} at most, at {site}; no target was set.", None, lines)
    over = [name for name in spending.sites if spending.over(name)]
    if over:
        more = f" and {len(over) - MOST_NAMED:,} more" if len(over) > MOST_NAMED else ""
        lost = f"OVER the target of {spending.target:g} at {', '.join(over[:MOST_NAMED])}{more}"
        return Answer(question, f"Epsilon {text} at {site}: {lost}.", False, lines)
    kept_to = f"every site is within the target of {spending.target:g}"
    return Answer(question, f"Epsilon {text} at most, at {site}; {kept_to}.", None, lines)


def _skipped(run: Readings) -> str:
    by_reason: dict[str, list[str]] = {}
    for number, why in sorted(run.skipped.items()):
        by_reason.setdefault(why, []).append(str(number))
    reasons = "; ".join(f"{why} in round {', '.join(numbers)}" for why, numbers in by_reason.items())
    return f"Rounds without training: {reasons}." if reasons else ""


def _sent(run: Readings) -> str:
    up, down = (total_bytes(run, metric) for metric in ("bytes_up", "bytes_down"))
    if not up and not down:
        return ""
    return f"Sent: {wording.size(up)} from the sites and {wording.size(down)} to them, over the whole run."


def _aside(run: Readings) -> str:
    times = {site: often for _, site, _, until, often in run.quarantines if until}
    named = ", ".join(f"{site} ({wording.count(often, 'time')})" for site, often in sorted(times.items()))
    return f"Set aside after failing rounds in a row: {named}." if times else ""


def _away(run: Readings) -> str:
    times = Counter(str(row["site"] or f"{row['n']:,} sites") for row in run.rows if row["metric"] == "away")
    named = ", ".join(f"{site} in {wording.count(often, 'round')}" for site, often in sorted(times.items()))
    return f"Not connected: {named}." if times else ""


def _refused(run: Readings) -> str:
    refused = run.refusals
    sites = sorted({site for _, site, _ in refused})
    more = f" and {len(sites) - MOST_NAMED:,} more" if len(sites) > MOST_NAMED else ""
    origin = f"from {', '.join(sites[:MOST_NAMED])}{more}"
    return f"Refused: {wording.count(len(refused), 'update')}, {origin}." if refused else ""
