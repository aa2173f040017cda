"""What the ledger books against what any person was really in, over histories of releases and people."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmchain_fl.core.errors import BudgetExhausted, PrivacyError
from llmchain_fl.core.privacy import totals
from llmchain_fl.core.privacy.accounting import epsilon
from llmchain_fl.core.privacy.charges import at_site, score_charge, training_charges
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.core.privacy.groups import EVERYBODY, HELD_OUT, site_group
from llmchain_fl.core.privacy.ledger import FileLedger
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.privacy.release import Charge, Release, Terms

DELTA = 1e-5
EVENT = Event("gaussian", 1.0, 1.0, 1)
PLAN = PrivacyPlan(1.0, 1.0, 1.0, 1, 16.0, DELTA, records_per_unit=8, score_noise=4.0)
DISJOINT = replace(PLAN, stages="disjoint")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Room for one ledger for each history."""
    return tmp_path_factory.mktemp("histories")


def opened(path: Path, limit: float = math.inf, accountant: str = "pld") -> FileLedger:
    return FileLedger(path / "state", path / "anchor", Terms("north", "person", DELTA, accountant, limit))


def told(key: str, charges: tuple[Charge, ...]) -> Release:
    return Release(key, charges, "plan", "training", "ward", "stage")


def test_persons_without_names_and_later_with_names_pay_for_both_in_either_order(tmp_path: Path) -> None:
    """Booked 4.38 once, for people who were in two full releases with z = 1: truly 6.57 at delta 1e-5."""
    one, two = epsilon([EVENT], DELTA), epsilon([EVENT, EVENT], DELTA)
    assert (round(one, 2), round(two, 2)) == (4.38, 6.57)
    charges = training_charges(DISJOINT, "s1")
    anonymous = told("a/1", at_site(training_charges(PLAN, "s1"), "notes", named=False))
    named = told("b/1", at_site(charges, "notes", named=True))
    people = [(site_group(charges[0].group, "notes"), ["p0", "p1"])]
    for name, order in (("x", [(anonymous, ()), (named, people)]), ("y", [(named, people), (anonymous, ())])):
        (tmp_path / name).mkdir()
        ledger = opened(tmp_path / name)
        for release, parts in order:
            assert all(mask.all() for mask in ledger.reserve(release, parts))
        assert ledger.spent().epsilon == two
        for charges in (anonymous.charges, named.charges):
            with pytest.raises(BudgetExhausted):
                opened(tmp_path / name, limit=two).afford(told("c/1", charges))


def test_renaming_a_data_set_gives_nobody_a_fresh_budget(tmp_path: Path) -> None:
    one, two = epsilon([EVENT], DELTA), epsilon([EVENT, EVENT], DELTA)
    ledger = opened(tmp_path, limit=(one + two) / 2)
    for data_set, may in (("notes", [True, True]), ("renamed", [False, False]), ("again", [False, False])):
        charges = at_site(training_charges(PLAN, "s1"), data_set, named=True)
        masks = ledger.reserve(told(f"{data_set}/1", charges), [(charges[0].group, ["p0", "p1"])])
        assert [mask.tolist() for mask in masks] == [may]
    assert ledger.spent().epsilon == one
    ledger = opened(tmp_path)
    charges = at_site(training_charges(PLAN, "s1"), "renamed", named=True)
    ledger.reserve(told("more", charges), [(charges[0].group, ["p0"])])
    assert ledger.spent().epsilon == epsilon([EVENT] * 3, DELTA)  # what renamed/training has ever paid counts


def test_without_names_a_renamed_data_set_pays_from_the_same_budget(tmp_path: Path) -> None:
    two = epsilon([EVENT, EVENT], DELTA)
    ledger = opened(tmp_path, limit=two)
    for data_set in ("notes", "renamed"):
        ledger.reserve(told(f"{data_set}/1", at_site(training_charges(PLAN, "s1"), data_set, named=False)))
    assert ledger.spent().epsilon == two
    with pytest.raises(BudgetExhausted):
        ledger.reserve(told("third/1", at_site(training_charges(PLAN, "s1"), "third", named=False)))


def test_scores_of_a_held_out_person_add_up_with_the_training_of_another_data_set(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    scores = at_site((score_charge(PLAN, 3),), "notes", named=True)
    ledger.reserve(told("r/1/scores", scores), [(f"notes/{HELD_OUT}", ["ann"])])
    training = at_site(training_charges(PLAN, "s1"), "visits", named=True)
    ledger.reserve(told("r/1", training), [("visits/training", ["ann"])])
    assert ledger.spent().epsilon == epsilon([EVENT, scores[0].event], DELTA)


GROUPS = [
    *["a/training", "a/training:x", "a/training:y", "a/held-out"],
    *["b/training", "b/training:x", "b/held-out", EVERYBODY],
]
NAMES = ["ann", "bob", "cid"]
EVENTS = [Event("gaussian", 1.0, z, 1) for z in (1.5, 3.0, 6.0)]
PEOPLE = st.lists(st.sampled_from(NAMES), max_size=4)


@dataclass(frozen=True)
class Ask:
    """One round: its charges, whom the site would let take part, and how often it is asked before it is sealed."""

    charges: tuple[Charge, ...]
    people: tuple[tuple[str, list[str]], ...]
    again: int

    def parts(self, without: str = "") -> list[tuple[str, list[str]]]:
        return [(group, [name for name in names if name != without]) for group, names in self.people]


@st.composite
def asks(draw: st.DrawFn) -> Ask:
    groups = draw(st.lists(st.sampled_from(GROUPS), min_size=1, max_size=3, unique=True))
    charges = tuple(Charge(group, draw(st.sampled_from(EVENTS))) for group in groups)
    named = [group for group in groups if group != EVERYBODY]
    parts = draw(st.lists(st.sampled_from(named), max_size=3)) if named else []
    return Ask(charges, tuple((group, draw(PEOPLE)) for group in parts), draw(st.integers(0, 2)))


HISTORIES = st.lists(asks(), min_size=1, max_size=9)
LIMITS = st.sampled_from([math.inf, 0.9, 3.0, 4.5])

Answers = dict[str, list[tuple[str, bool]]]
"""Name -> for each part that names them, its group and whether they may take part."""


def played(
    home: Path, history: list[Ask], limit: float, without: str = "", people: bool = True
) -> tuple[FileLedger, list[Answers | None]]:
    """The ledger after ``history``; of each ask the answers of its last attempt, None where it was refused."""
    folder = Path(tempfile.mkdtemp(dir=home))
    ledger, found = opened(folder, limit, "rdp"), list[Answers | None]()
    for number, ask in enumerate(history):
        parts = ask.parts(without) if people else []
        release = told(f"r/{number}", ask.charges)
        try:
            for _ in range(ask.again + 1):
                masks = opened(folder, limit, "rdp").reserve(release, parts)
        except BudgetExhausted:
            found.append(None)
            continue
        if number % 2:
            ledger.seal(release.key, b"x")
        answers: Answers = {}
        for (group, names), mask in zip(parts, masks, strict=True):
            for name, may in zip(names, mask.tolist(), strict=True):
                answers.setdefault(name, []).append((group, may))
        found.append(answers)
    return ledger, found


def truth(name: str, history: list[Ask], found: list[Answers | None]) -> float:
    """Epsilon of everything that ``name`` may have been in: each charge of a group that let them take part, and each
    charge to everybody, whose people have no names."""
    events = []
    for ask, answers in zip(history, found, strict=True):
        if answers is None:
            continue
        groups = {EVERYBODY} | {group for group, may in answers.get(name, []) if may}
        events += [charge.event for charge in ask.charges if charge.group in groups]
    return epsilon(events, DELTA, "rdp")


@settings(max_examples=60, deadline=None)
@given(HISTORIES, LIMITS)
def test_the_ledger_never_books_less_than_any_person_was_in_and_never_passes_the_limit(
    home: Path, history: list[Ask], limit: float
) -> None:
    ledger, found = played(home, history, limit)
    booked = ledger.spent().epsilon
    for name in NAMES:
        assert truth(name, history, found) <= booked + 1e-12
    assert booked <= limit + 1e-12


@settings(max_examples=40, deadline=None)
@given(HISTORIES, LIMITS, st.sampled_from(NAMES))
def test_whether_a_round_is_refused_and_who_else_takes_part_does_not_depend_on_one_person(
    home: Path, history: list[Ask], limit: float, without: str
) -> None:
    _, found = played(home, history, limit)
    _, fewer = played(home, history, limit, without)
    _, none = played(home, history, limit, people=False)
    assert [answers is None for answers in found] == [answers is None for answers in none]
    for answers, others in zip(found, fewer, strict=True):
        assert others == (answers and {name: told for name, told in answers.items() if name != without})


@settings(max_examples=40, deadline=None)
@given(HISTORIES, LIMITS, asks())
def test_afford_says_before_what_reserve_will_do_and_writes_nothing(
    home: Path, history: list[Ask], limit: float, ask: Ask
) -> None:
    ledger, _ = played(home, history, limit)
    before = ledger.spent()
    outcomes = []
    for call in (ledger.afford, lambda release: ledger.reserve(release, ask.parts())):
        try:
            call(told("new", ask.charges))
            outcomes.append("taken")
        except BudgetExhausted:
            outcomes.append("refused")
        if len(outcomes) == 1:
            assert ledger.spent() == before
    assert outcomes[0] == outcomes[1]


def test_where_the_accountant_comes_to_no_number_nothing_is_paid_and_the_total_is_infinite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def some(groups: dict[object, list[Event]], delta: float, accountant: str) -> float:
        if any(len(events) > 1 for events in groups.values()):
            raise PrivacyError("no number", remedy="none")
        return 1.0

    ledger = opened(tmp_path, limit=2.0)
    monkeypatch.setattr(totals, "groups_epsilon", some)
    for number, group in enumerate(("a/training", "b/training")):
        event = EVENTS[number]
        masks = ledger.reserve(told(f"r/{number}", (Charge(group, event),)), [(group, ["ann"])])
        assert masks[0].tolist() == [number == 0]  # nobody pays for what has no number
    with pytest.raises(BudgetExhausted):
        ledger.reserve(told("r/9", (Charge("a/training", EVENTS[2]),)))
    assert ledger.spent().epsilon == 1.0
    opened(tmp_path, limit=math.inf).reserve(told("r/9", (Charge("a/training", EVENTS[2]),)))
    assert ledger.spent().epsilon == math.inf
