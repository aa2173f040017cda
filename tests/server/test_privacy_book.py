"""The server's record of what sites have spent: the same numbers as in the sites' own ledgers."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.config.read import build
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.privacy.accounting import epsilon
from llmchain_fl.core.privacy.charges import at_site, score_charge, score_event, training_charges, training_event
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.core.privacy.ledger import FileLedger
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.privacy.release import Release, Terms
from server.privacy_book import PrivacyBook, known_noise, make_plan

STAGES = [{"name": "a", "rounds": 2}, {"name": "b", "rounds": 3}, {"name": "c", "rounds": 1}]
COURSE = ["a", "a", "b", "b", "b", "c"]


def config(held_out: float = 0.2, **privacy: Any) -> RunConfig:
    """Three stages of 2, 3 and 1 rounds; noise is given unless a budget is."""
    given = {"enabled": True} | ({} if "epsilon" in privacy else {"noise_multiplier": 3.0})
    return build(
        {
            "task": {"labels": ["x"]},
            "data": {"train": "x"},
            "sites": {"count": 3, "minimum": 2, "held_out": held_out},
            "train": {"sampling_rate": 0.05, "steps": 4, "batch_size": 8},
            "privacy": {**given, **privacy},
            "stage": STAGES,
        }
    )


def book_of(run: RunConfig, kept: Any = None) -> tuple[PrivacyBook, PrivacyPlan]:
    plan = make_plan(run)
    assert plan is not None
    book = PrivacyBook(run, plan)
    if kept is not None:
        book.load_state(json.loads(json.dumps(kept)))
    return book, plan


KINDS: dict[str, dict[str, Any]] = {
    "persons, shared stages": {"unit": "person"},
    "persons, disjoint stages": {"unit": "person", "stages": "disjoint"},
    "persons with a budget": {"unit": "person", "stages": "disjoint", "epsilon": 3.0},
    "by the other accountant": {"unit": "person", "accountant": "rdp", "epsilon": 3.0},
    "records": {"unit": "record"},
    "sites": {"unit": "site"},
    "sites, the clip norm follows": {"unit": "site", "clip_quantile": 0.5, "epsilon": 9.0},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_server_counts_what_the_site_itself_counts_after_every_round_and_every_score(
    kind: str, tmp_path: Path
) -> None:
    run = config(**KINDS[kind])
    book, plan = book_of(run)
    terms = Terms("notes", plan.unit, plan.delta, run.privacy.accountant, math.inf)
    ledger = FileLedger(tmp_path / "ledger", tmp_path / "anchor", terms)
    named = plan.unit == "person"
    for number, stage in enumerate(COURSE, start=1):
        charges = at_site(training_charges(plan, stage), "notes", named)
        ledger.reserve(Release(f"r/{number}", charges, "", "training", "", stage))
        book.charge(["north"], stage)
        if plan.score_noise and stage != (COURSE[number:] or [""])[0]:
            known = sorted(set(COURSE[:number]))
            charges = at_site((score_charge(plan, len(known)),), "notes", named)
            ledger.reserve(Release(f"r/{number}/scores", charges, "", "scores", "", stage))
            book.charge_scores(["north"], len(known))
        assert book.worst() == ledger.spent().epsilon > 0
    groups = {group: sum(event.steps for event in events) for group, events in ledger.spent().groups}
    per_round = plan.steps_per_round
    counted = {
        f"notes/{group}" if named else "everybody": count if group == "held-out" else count * per_round
        for group, count in book.spendings["north"].items()
    }
    assert counted == groups


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_site_has_spent_survives_a_restart_of_the_server(kind: str) -> None:
    run = config(**KINDS[kind])
    book, _ = book_of(run)
    for stage in COURSE:
        book.charge(["north"], stage)
    book.charge(["south"], "a")
    book.charge_scores(["south"], 6)
    again, _ = book_of(run, book.state())
    assert again.spendings == book.spendings
    assert again.as_json(["north", "south"]) == book.as_json(["north", "south"])
    again.charge(["north"], "a")
    assert again.spendings != book.spendings


def test_with_disjoint_stages_the_largest_stage_counts_and_with_shared_ones_all_of_them() -> None:
    for stages, steps in (("disjoint", 3), ("shared", 6)):
        book, plan = book_of(config(unit="person", stages=stages, held_out=0.0))
        for stage in COURSE:
            book.charge(["north"], stage)
        assert book.worst() == epsilon([training_event(plan, steps)], plan.delta)


def test_scores_are_a_group_of_their_own_beside_the_training() -> None:
    book, plan = book_of(config(unit="person"))
    book.charge(["north"], "a")
    training = book.worst()
    book.charge_scores(["north"], 1)
    scores = epsilon([score_event(plan, 1)], plan.delta)
    assert book.worst() == max(training or 0.0, scores)
    book.charge_scores(["north"], 50)
    assert book.worst() == epsilon([score_event(plan, 51)], plan.delta)
    assert book.spendings == {"north": {"training": 1, "held-out": 51}}


def test_a_site_that_was_not_asked_has_spent_nothing() -> None:
    book, _ = book_of(config(unit="person"))
    book.charge(["north"], "a")
    rows = book.rows(1, 0, ["south", "north"])
    assert [(row["site"], row["value"] > 0) for row in rows] == [("north", True), ("south", False)]
    assert book.as_json(["south"])["sites"]["south"] == {
        "epsilon": 0.0,
        "epsilon_rdp": 0.0,
        "rounds": 0,
        "steps": 0,
        "groups": {},
    }


# -- the budget of a run ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stages", "unit"), [("shared", "person"), ("disjoint", "person"), ("shared", "site")])
def test_the_noise_is_calibrated_so_that_the_whole_run_just_fits(stages: str, unit: str) -> None:
    book, _ = book_of(config(unit=unit, stages=stages, epsilon=3.0))
    for stage in COURSE:
        assert book.affords("north", stage)
        book.charge(["north"], stage)
    assert 2.97 < (book.worst() or 0.0) <= 3.0
    fuller = "b" if stages == "disjoint" else "a"
    assert not book.affords("north", fuller)
    assert book.affords("south", fuller)


def test_a_stage_that_is_not_full_may_go_on_when_another_one_is() -> None:
    book, _ = book_of(config(stages="disjoint", epsilon=3.0))
    for _ in range(3):
        book.charge(["north"], "b")
    assert not book.affords("north", "b")
    assert book.affords("north", "a")


def test_scores_of_the_whole_run_fit_the_same_budget() -> None:
    """After stage k, k scores: 1 + 2 + 3."""
    book, plan = book_of(config(unit="person", epsilon=3.0))
    book.charge_scores(["north"], 6)
    assert 2.97 < (book.worst() or 0.0) <= 3.0
    assert plan.score_noise > 0


def test_without_a_budget_every_round_is_affordable() -> None:
    book, _ = book_of(config(unit="person"))
    for _ in range(100):
        book.charge(["north"], "a")
    assert book.affords("north", "a")


@pytest.mark.parametrize(
    ("held_out", "unit", "noised"),
    [
        (0.2, "person", True),
        (0.0, "person", False),
        (0.2, "record", False),
        (0.2, "site", False),
    ],
)
def test_scores_are_noised_where_persons_are_held_out(held_out: float, unit: str, noised: bool) -> None:
    plan = make_plan(config(held_out=held_out, unit=unit))
    assert plan is not None
    assert (plan.score_noise > 0) is noised


def test_a_run_that_is_taken_up_again_has_the_same_plan() -> None:
    for kind in KINDS.values():
        book, first = book_of(config(**kind))
        again = PrivacyBook(config(**kind), None)
        again.load_state(book.state())
        assert again.plan == first


def test_rounds_under_other_noise_count_with_the_plan_they_were_played_under() -> None:
    book, first = book_of(config(unit="person"))
    book.charge(["north"], "a")
    book.charge_scores(["north"], 2)
    louder = replace(first, noise_multiplier=2 * first.noise_multiplier, score_noise=2 * first.score_noise)
    book.mark("south", "a")
    book.go_on_with(louder)
    assert book.affords("south", "a")  # its owner may have given it more
    for _ in range(3):
        book.charge(["north", "south"], "a")
    training = [training_event(first), training_event(louder, 3)]
    assert book.spent("north") == {"training": training, "held-out": [score_event(first, 2)]}
    assert book.spent("south") == {"training": [training_event(louder, 3)]}
    assert book.spendings == {"north": {"training": 4, "held-out": 2}, "south": {"training": 3}}
    assert book.epsilon(book.spent("north")) == max(
        epsilon(training, first.delta), epsilon([score_event(first, 2)], first.delta)
    )
    again, _ = book_of(config(unit="person"), book.state())
    assert again.as_json(["north", "south"]) == book.as_json(["north", "south"])
    assert [plan["noise_multiplier"] for plan in again.as_json([])["earlier_plans"]] == [first.noise_multiplier]


# -- noise that the sites share ------------------------------------------------------------------------------------


def shared(count: int, survivors: int, unit: str = "person", **privacy: Any) -> RunConfig:
    """Two rounds of lockstep, their noise on the sum."""
    train = {"sampling_rate": 0.05, "steps": 1, "batch_size": 8, "method": "lockstep"}
    given = {"enabled": True, "unit": unit, "noise": "sum"} | (privacy or {"noise_multiplier": 3.0})
    return build(
        {
            "task": {"labels": ["x"]},
            "data": {"train": "x"},
            "sites": {"count": count, "minimum": 2, "held_out": 0.0},
            "secure": {"sum": True, "survivors": survivors},
            "train": train if unit != "site" else {},
            "privacy": given,
            "stage": [{"name": "a", "rounds": 2}],
        }
    )


@pytest.mark.parametrize("unit", ["person", "site"])
@pytest.mark.parametrize(("count", "survivors"), [(3, 3), (5, 4), (5, 5)])
def test_each_number_of_trusted_peers_has_the_epsilon_of_the_shares_that_stay_unknown(
    count: int, survivors: int, unit: str
) -> None:
    book, plan = book_of(shared(count, survivors, unit))
    book.charge(["north", "south"], "a")
    book.charge(["north"], "a")
    found = book.as_json(["north", "south"])
    peers = {int(h): value for h, value in found["epsilon_by_trusted_peers"].items()}
    assert sorted(peers) == list(range(count))
    kind = "discrete-gaussian" if unit == "site" else "poisson-discrete-gaussian"
    for trusted, value in peers.items():
        gone = count - survivors  # of the trusted, so many may not be there
        known = 1 + max(0, trusted - gone)
        event = Event(kind, plan.sampling_rate, 3.0 * math.sqrt(known / survivors), 2)
        assert value == pytest.approx(epsilon([event], plan.delta), rel=1e-9)
    assert peers[count - 1] == found["sites"]["north"]["epsilon"] == book.worst()
    assert "against the server together with all the others" in found["epsilon_by_trusted_peers_is"]


def test_rows_and_file_say_that_noise_is_shared() -> None:
    book, _ = book_of(shared(5, 4))
    book.charge(["north"], "a")
    words = "noise on the sum of 4 to 5 sites, which share it; against the server alone"
    assert book.terms == f"delta 1e-5, per person, PLD accountant, {words}"
    assert {row["noise"] for row in book.rows(1, 0, ["north"])} == {book.as_json(["north"])["noise"]} == {"sum 4-5"}


def test_rounds_of_an_earlier_plan_count_by_the_shares_of_that_plan() -> None:
    book, first = book_of(shared(3, 3))
    book.charge(["north"], "a")
    wider = replace(first, shares=4, members=4)
    book.go_on_with(wider)
    book.charge(["north"], "a")
    found = book.as_json(["north"])["epsilon_by_trusted_peers"]
    events = [training_event(first, 1, first.counted(2)), training_event(wider, 1, wider.counted(2))]
    assert list(found) == ["0", "1", "2", "3"]
    assert found["2"] == epsilon(events, first.delta)


@pytest.mark.parametrize("kind", [{"unit": "person"}, {"unit": "site"}])
def test_where_no_noise_is_shared_there_are_no_peers_to_trust(kind: dict[str, Any]) -> None:
    book, _ = book_of(config(**kind))
    book.charge(["north"], "a")
    assert not any("trusted_peers" in key for key in book.as_json(["north"]))


@pytest.mark.parametrize(
    ("count", "survivors", "expected"), [(3, 3, 1.0 * 3.0 / 3), (5, 4, None)], ids=["all stay", "one may be gone"]
)
def test_guards_are_told_the_noise_of_a_mean_only_where_it_is_the_same_in_every_round(
    count: int, survivors: int, expected: float | None
) -> None:
    run = shared(count, survivors, "site")
    assert known_noise(run, make_plan(run)) == expected


# -- what a site says of its own budget -------------------------------------------------------------------------------


def test_a_site_that_cannot_pay_for_a_stage_is_not_asked_for_it_again_and_is_asked_for_others() -> None:
    book, _ = book_of(config(stages="disjoint"))
    book.mark("north", "a")
    assert [book.affords("north", stage) for stage in "abc"] == [False, True, True]
    assert book.affords("south", "a")


@pytest.mark.parametrize("kind", [{"stages": "shared"}, {"enabled": False}, {"unit": "site"}])
def test_where_all_stages_are_paid_by_the_same_units_none_is_asked_for_again(kind: dict[str, Any]) -> None:
    run = config(**kind)
    book = PrivacyBook(run, make_plan(run))
    book.mark("north", "a")
    assert not any(book.affords("north", stage) for stage in "abc")


def test_a_round_that_rehearses_a_stage_needs_all_of_its_groups() -> None:
    run = config(stages="disjoint")
    plan = make_plan(run)
    assert plan is not None
    book = PrivacyBook(run, replace(plan, rehearsal="earlier"))
    book.mark("north", "b", ("a",))
    assert book.affords("north", "b")
    assert not book.affords("north", "b", ("a",))
    assert not book.affords("north", "c", ("a", "b"))


def test_what_sites_have_said_survives_a_restart_and_is_said_once() -> None:
    run = config(stages="disjoint")
    book, _ = book_of(run)
    for _ in range(3):
        book.mark("north", "a")
    assert book.used_up == {"north": [["training:a"]]}
    assert not book_of(run, book.state())[0].affords("north", "a")


def test_why_nobody_can_pay_is_said_with_all_terms_of_an_epsilon() -> None:
    book = PrivacyBook(config(epsilon=1.0), PrivacyPlan(1.0, 0.5, 1.0, 4, 8.0, 1e-5))
    said = book.spent_out("a")
    assert said.startswith("the first round costs epsilon ")
    assert said.endswith(
        "(delta 1e-5, per person, PLD accountant, noise added at each site), more than the target of 1"
    )
    book.charge(["north"], "a")
    assert book.spent_out("a") == "every site has used up its budget"


# -- privacy off, and what is written ---------------------------------------------------------------------------------


def test_with_privacy_off_nothing_is_counted_and_nothing_is_claimed() -> None:
    run = config(enabled=False)
    assert make_plan(run) is None
    book = PrivacyBook(run, None)
    book.charge(["north"], "a")
    book.charge_scores(["north"], 3)
    assert (book.worst(), book.spendings, book.rows(1, 0, ["north"])) == (None, {}, [])
    assert book.affords("north", "a")
    assert book.as_json(["north"]) == {"private": False, "sites": {}}
    assert book.terms == "no differential privacy"


def test_without_noise_the_epsilon_is_infinite_and_not_left_out() -> None:
    run = config(unit="person", held_out=0.0)
    plan = PrivacyPlan(0.05, 0.0, 1.0, 4, 8.0, 1e-5)
    book = PrivacyBook(run, plan)
    book.charge(["north"], "a")
    assert book.worst() == math.inf


def test_an_epsilon_is_written_with_its_terms() -> None:
    book, plan = book_of(config(unit="person", epsilon=3.0, accountant="rdp", delta=1e-6))
    book.charge(["north"], "a")
    (row,) = book.rows(1, 0, ["north"])
    assert (row["metric"], row["scope"], row["site"], row["round"], row["stage"]) == ("epsilon", "site", "north", 1, 0)
    assert (row["delta"], row["unit"], row["accountant"]) == (1e-6, "person", "rdp")
    assert book.terms == "delta 1e-6, per person, RDP accountant, noise added at each site"
    written = book.as_json(["north"])
    assert (written["unit"], written["delta"], written["accountant"], written["target_epsilon"]) == (
        "person",
        1e-6,
        "rdp",
        3.0,
    )
    assert written["plan_digest"] == plan.digest()
    assert written["sites"]["north"]["epsilon"] == row["value"]
    assert (written["sites"]["north"]["rounds"], written["sites"]["north"]["steps"]) == (1, 4)


@pytest.mark.parametrize(("stages", "words"), [("shared", "sequential over all rounds"), ("disjoint", "are disjoint")])
def test_how_stages_were_composed_is_written_in_words(stages: str, words: str) -> None:
    book, _ = book_of(config(stages=stages))
    assert words in book.as_json([])["composition"]
    assert book.as_json([])["stages"] == stages


def test_the_rounds_of_all_stages_are_told_beside_the_epsilon_of_the_largest() -> None:
    book, plan = book_of(config(stages="disjoint"))
    for stage in COURSE:
        book.charge(["north"], stage)
    book.charge_scores(["north"], 3)
    site = book.as_json(["north"])["sites"]["north"]
    assert (site["rounds"], site["steps"]) == (6, 24)
    assert site["groups"] == {"training:a": 2, "training:b": 3, "training:c": 1, "held-out": 3}
    assert site["epsilon"] == max(
        epsilon([training_event(plan, 3)], plan.delta),
        epsilon([Event("gaussian", 1.0, plan.score_noise, 3)], plan.delta),
    )
