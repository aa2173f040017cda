"""The tables of a comparison as plain data: text and marks, for the terminal, Markdown and the page.

Three of them, each left out where it has nothing to say: the score with the last axis across, every number in a line
for each combination, and the differences to the baseline.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from llmchain_fl.compare.measures import measure
from llmchain_fl.compare.outcome import Outcome
from llmchain_fl.compare.plan import Comparison
from llmchain_fl.compare.references import CLOSED_FORM, ZERO_SHOT, about_head, head_of, main_scores, zero_shot
from llmchain_fl.compare.spread import (
    BEST,
    DASH,
    TIED,
    Groups,
    Key,
    Values,
    difference,
    heading,
    marks,
    of_difference,
    of_spread,
)
from llmchain_fl.report import wording


@dataclass(frozen=True)
class Entry:
    """One cell of a table."""

    text: str
    mark: str = ""

    def __str__(self) -> str:
        return f"{self.text} {self.mark}" if self.mark else self.text


@dataclass
class Table:
    """``heads`` of the row labels and of the columns; ``rows``: labels and entries; ``notes``: read with the table."""

    title: str
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    rows: list[tuple[Key, list[Entry]]]
    notes: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """As a Markdown table with its notes."""
        head = [*self.labels, *self.columns]
        lines = [_line(head), _line(["---"] * len(self.labels) + ["---:"] * len(self.columns))]
        lines += [_line([*labels, *map(str, entries)]) for labels, entries in self.rows]
        return "\n".join([f"**{self.title}**", "", *lines, "", *(f"- {note}" for note in self.notes)]).rstrip() + "\n"


def tables_of(comparison: Comparison, outcomes: Sequence[Outcome]) -> list[Table]:
    """Every table that has something to say, the one to read first first."""
    groups = Groups.of(comparison, outcomes)
    tables = [] if comparison.continual or len(comparison.shown) < 2 else [score_table(groups)]
    return [*tables, number_table(groups), *difference_tables(groups)]


def score_table(groups: Groups) -> Table:
    """The score: rows are the first axes, columns the labels of the last axis."""
    comparison, score = groups.comparison, groups.comparison.score
    *rows, last = comparison.shown
    across = [label for label in last.values if any(key[-1] == label for key in groups.by_key)]
    marked = _marks_of(groups, score)
    notes, head = _Notes(), [head_of(groups, label) for label in across]
    lines = [
        (key, [_entry(groups, score, (*key, label), marked, notes) for label in across])
        for key in dict.fromkeys(key[:-1] for key in groups.by_key)
    ]
    if score in main_scores(groups) and any(head):
        lines.insert(0, ((CLOSED_FORM, *[""] * (len(rows) - 1)), [Entry(text or DASH) for text in head]))
    others = [axis.name for axis in comparison.shown[1:-1]]
    remarks = [
        _about_spread(groups),
        _about_marks(marked.values(), comparison, others),
        _about_privacy(groups),
        *notes.told,
        about_head(groups),
    ]
    title = f"{heading(score, groups.metrics)} by {last.name}"
    return Table(title, tuple(axis.name for axis in rows), tuple(across), lines, [note for note in remarks if note])


def number_table(groups: Groups) -> Table:
    """One line for each combination of labels, one column for each measure; epsilon wherever there was privacy."""
    comparison, measures, notes = groups.comparison, measures_of(groups), _Notes()
    terms = epsilon_terms(_all(groups))
    marked = {name: _marks_of(groups, name) for name in measures}
    lines: list[tuple[Key, list[Entry]]] = [
        (key, [_entry(groups, name, key, marked[name], notes, terms) for name in measures]) for key in groups.by_key
    ]
    if head := head_of(groups):
        lines.insert(0, _reference(groups, CLOSED_FORM, head, measures))
    if comparison.continual:
        lines.insert(0, _reference(groups, ZERO_SHOT, zero_shot(groups), measures))
    given = [mark for by_key in marked.values() for mark in by_key.values()]
    remarks = [_about_spread(groups), _about_marks(given, comparison, [axis.name for axis in comparison.shown[1:]])]
    if "epsilon" in measures:
        remarks.append("epsilon: the highest of all sites and repetitions" + (f"; {terms}" if terms else ""))
    title = "what was learned and forgotten" if comparison.continual else "all numbers"
    heads = tuple(heading(name, groups.metrics) for name in measures)
    names = tuple(axis.name for axis in comparison.shown)
    return Table(title, names, heads, lines, [note for note in (*remarks, *notes.told, about_head(groups)) if note])


def measures_of(groups: Groups) -> list[str]:
    """The columns of :func:`number_table`."""
    first = [] if groups.comparison.continual else [groups.comparison.score]
    private = ["epsilon"] if any(outcome.epsilon for outcome in _all(groups)) else []
    return list(dict.fromkeys([*first, *(name for name in groups.comparison.report if name != "epsilon"), *private]))


def difference_tables(groups: Groups) -> list[Table]:
    """What each label adds to the baseline of its axis, pair by pair; nothing where no axis has a baseline."""
    comparison, axis = groups.comparison, groups.comparison.baseline
    if axis is None or axis not in comparison.shown:
        return []
    place, lines = comparison.shown.index(axis), list[tuple[Key, list[Entry]]]()
    names = [name for name in measures_of(groups) if measure(name).kind in ("score", "difference")]
    for key in groups.by_key:
        base = (*key[:place], axis.baseline, *key[place + 1 :])
        if key != base and base in groups.by_key:
            lines.append((key, [Entry(_gap(groups, key, base, name)) for name in names]))
    if not lines:
        return []
    heads = tuple(heading(name, groups.metrics, change=True) for name in names)
    note = (
        f"each pair has the same {unit_words(comparison)}; mean ± what chance can make of it, 19 times of 20 "
        "(in how many pairs it is better); one pair has no margin"
    )
    labels = tuple(axis.name for axis in comparison.shown)
    return [Table(f"difference to {axis.name} {axis.baseline}", labels, heads, lines, [note])]


def _gap(groups: Groups, key: Key, base: Key, name: str) -> str:
    lower = measure(name).lower_is_better(groups.metrics)
    return of_difference(
        difference(groups.values(key, name), groups.values(base, name), lower=lower), name, groups.metrics
    )


class _Notes:
    """Numbered notes under a table: the same reason has the same number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        return self._numbers.setdefault(text, len(self._numbers) + 1)

    @property
    def told(self) -> list[str]:
        return [f"({number}) {text}" for text, number in self._numbers.items()]


def _entry(groups: Groups, name: str, key: Key, marked: Mapping[Key, str], notes: _Notes, terms: str = "") -> Entry:
    """What stands at one place; what did not finish is numbered in the notes."""
    group = groups.by_key.get(key, [])
    left = [outcome for outcome in group if outcome.status != "finished"]
    numbers = sorted({notes.number(f"{outcome.status}: {outcome.reason}") for outcome in left})
    why = "".join(f" ({number})" for number in numbers)
    if len(left) == len(group):
        return Entry(f"{left[0].status}{why}" if left else DASH)
    if name == "epsilon":
        return Entry(of_epsilon(group, terms) + why)
    spread = groups.spread(key, name)
    few = f", n={spread.n}" if left or 0 < spread.n < _most(groups) else ""
    return Entry(of_spread(spread, name, groups.metrics) + few + why, marked.get(key, ""))


def columns_of(groups: Groups, name: str) -> dict[Key, dict[Key, Values]]:
    """Labels of the other axes -> the rows that share them, with one measure by unit.

    ``joint`` and ``alone`` are references and take no part.
    """
    columns: dict[Key, dict[Key, Values]] = {}
    for key, group in groups.by_key.items():
        if all(outcome.play == "sequence" for outcome in group):
            columns.setdefault(key[1:], {})[key] = groups.values(key, name)
    return columns


def _marks_of(groups: Groups, name: str) -> dict[Key, str]:
    """Marks of one column, among labels of the first axis that share all other labels; bytes and times have none."""
    one = measure(name)
    if one.kind not in ("score", "difference"):
        return {}
    columns, lower = columns_of(groups, name).values(), one.lower_is_better(groups.metrics)
    return {key: mark for column in columns for key, mark in marks(column, lower=lower).items()}


def _reference(groups: Groups, title: str, text: str, names: Sequence[str]) -> tuple[Key, list[Entry]]:
    """A line that has the main score alone."""
    entries = [Entry(text if name in main_scores(groups) else DASH) for name in names]
    return (title, *[""] * (len(groups.comparison.shown) - 1)), entries


def _all(groups: Groups) -> list[Outcome]:
    return [outcome for group in groups.by_key.values() for outcome in group]


def _most(groups: Groups) -> int:
    """The most repetitions of any combination."""
    return max((groups.spread(key, groups.comparison.score).n for key in groups.by_key), default=0)


def _about_spread(groups: Groups) -> str:
    most = _most(groups)
    return f"mean ± standard deviation over n = {most} ({unit_words(groups.comparison)})" if most > 1 else ""


def _about_privacy(groups: Groups) -> str:
    if not any(outcome.epsilon for outcome in _all(groups)):
        return ""
    return f"with privacy: what was spent stands under all numbers; {epsilon_terms(_all(groups))}".strip("; ")


def _about_marks(given: Iterable[str], comparison: Comparison, others: Sequence[str] = ()) -> str:
    there, scope = set(given), f" at the same {' and '.join(others)}" if others else ""
    tied = f"; {TIED} not told apart from it (paired by {unit_words(comparison)}, 95 %)" if TIED in there else ""
    return f"{BEST} best mean of its column{scope}{tied}" if BEST in there else ""


def unit_words(comparison: Comparison) -> str:
    return " and ".join(["seed", *(axis.name for axis in comparison.repeats)])


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def of_epsilon(outcomes: Iterable[Outcome], terms: str) -> str:
    """The highest epsilon, with its terms unless they stand for the whole table already; ``none`` without privacy."""
    spent = [outcome.epsilon for outcome in outcomes if outcome.epsilon]
    if not spent:
        return "none"
    worst = max(spent, key=lambda epsilon: epsilon.value)
    return wording.epsilon_text(worst.value, "" if terms else worst.terms)


def epsilon_terms(outcomes: Iterable[Outcome]) -> str:
    """Delta, unit, accountant and who adds the noise, where they are the same everywhere; else empty."""
    terms = {outcome.epsilon.terms for outcome in outcomes if outcome.epsilon}
    return terms.pop() if len(terms) == 1 else ""
