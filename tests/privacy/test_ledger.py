from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest

from llmchain_fl.core.errors import BudgetExhausted, PrivacyError
from llmchain_fl.core.privacy.accounting import epsilon
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.core.privacy.ledger import FileLedger
from llmchain_fl.core.privacy.null_ledger import NullLedger
from llmchain_fl.core.privacy.release import Charge, Ledger, Release, Terms

DELTA = 1e-5
EVENT = Event("poisson-gaussian", 0.05, 1.0, 20)
OTHER = Event("poisson-gaussian", 0.02, 1.0, 20)
SCORES = Event("gaussian", 1.0, 5.0, 1)
ONE, TWO = (epsilon([EVENT] * rounds, DELTA) for rounds in (1, 2))
TERMS = Terms("cards", "person", DELTA, "pld", math.inf)


def opened(path: Path, limit: float = math.inf, **terms: str) -> FileLedger:
    return FileLedger(path / "ledger", path / "anchor", replace(TERMS, epsilon_limit=limit, **terms))


def release(key: str, event: Event = EVENT, plan: str = "plan", group: str = "cards/training") -> Release:
    return Release(key, (Charge(group, event),), plan, "training", "ward", "cards")


def log(path: Path) -> Path:
    return path / "ledger" / "events.jsonl"


def filled(path: Path) -> FileLedger:
    ledger = opened(path)
    ledger.reserve(release("run/1"))
    ledger.seal("run/1", b"first")
    ledger.reserve(release("run/2", OTHER))
    return ledger


def test_reservations_are_composed_and_survive_a_new_start(tmp_path: Path) -> None:
    ledger = filled(tmp_path)
    spent = ledger.spent()
    assert (spent.delta, spent.unit, spent.accountant) == (DELTA, "person", "pld")
    assert spent.groups == (("cards/training", (OTHER, EVENT)),)
    assert spent.epsilon == epsilon([EVENT, OTHER], DELTA)
    assert opened(tmp_path).spent() == spent


def test_a_fresh_ledger_has_spent_nothing(tmp_path: Path) -> None:
    assert opened(tmp_path).spent().epsilon == 0.0
    assert opened(tmp_path).spent().groups == ()


def test_the_total_is_that_of_the_group_that_paid_most(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.reserve(release("run/1", group="cards/training:a"))
    ledger.reserve(release("run/2", group="cards/training:b"))
    ledger.reserve(release("run/3", group="cards/training:a"))
    ledger.reserve(release("run/3/scores", SCORES, group="cards/held-out"))
    assert ledger.spent().epsilon == TWO
    merged = Event("poisson-gaussian", 0.05, 1.0, 40)
    assert ledger.spent().groups == (
        ("cards/held-out", (SCORES,)),
        ("cards/training:a", (merged,)),
        ("cards/training:b", (EVENT,)),
    )
    assert ledger.spent().events == (SCORES, merged, EVENT)


def test_a_release_may_charge_several_groups_at_once(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    both = replace(release("run/1"), charges=(Charge("cards/training:a", EVENT), Charge("cards/training:b", OTHER)))
    ledger.reserve(both)
    ledger.reserve(both)
    assert opened(tmp_path).spent().groups == (("cards/training:a", (EVENT,)), ("cards/training:b", (OTHER,)))
    with pytest.raises(PrivacyError, match="something else"):
        ledger.reserve(replace(both, charges=both.charges[:1]))


def test_a_crash_between_reserve_and_seal_is_not_charged_twice(tmp_path: Path) -> None:
    opened(tmp_path).reserve(release("run/1"))
    before = log(tmp_path).read_bytes()
    again = opened(tmp_path, limit=ONE / 2)  # even when the data holder has lowered the limit since
    again.reserve(release("run/1"))
    assert again.sealed("run/1") is None
    assert again.spent().epsilon == ONE
    assert log(tmp_path).read_bytes() == before


def test_the_sealed_update_is_sent_again_byte_for_byte(tmp_path: Path) -> None:
    payload = bytes(range(256)) * 50
    ledger = opened(tmp_path)
    ledger.reserve(release("run/1"))
    ledger.seal("run/1", payload)
    assert ledger.sealed("run/1") == payload
    assert opened(tmp_path).sealed("run/1") == payload
    assert opened(tmp_path).sealed("run/2") is None


def test_a_sealed_round_is_never_trained_again_nor_sealed_with_other_bytes(tmp_path: Path) -> None:
    ledger = filled(tmp_path)
    with pytest.raises(PrivacyError, match="sealed"):
        ledger.reserve(release("run/1"))
    with pytest.raises(PrivacyError, match="other bytes"):
        ledger.seal("run/1", b"second")
    before = log(tmp_path).read_bytes()
    ledger.seal("run/1", b"first")
    assert log(tmp_path).read_bytes() == before
    assert ledger.sealed("run/1") == b"first"


def test_a_round_must_be_reserved_before_it_is_sealed(tmp_path: Path) -> None:
    with pytest.raises(PrivacyError, match="never reserved"):
        opened(tmp_path).seal("run/1", b"x")


@pytest.mark.parametrize("field", ["charges", "plan", "purpose", "federation", "stage"])
def test_a_reserved_round_stays_what_it_was(tmp_path: Path, field: str) -> None:
    ledger = filled(tmp_path)
    changed = {"charges": (Charge("cards/training", EVENT),), "purpose": "scores"}.get(field, "another")
    with pytest.raises(PrivacyError, match="something else"):
        ledger.reserve(replace(release("run/2", OTHER), **{field: changed}))
    ledger.reserve(release("run/2", OTHER))
    assert ledger.spent().epsilon == epsilon([EVENT, OTHER], DELTA)


def test_the_budget_is_enforced_before_anything_is_written(tmp_path: Path) -> None:
    ledger = opened(tmp_path, limit=(ONE + TWO) / 2)
    ledger.reserve(release("run/1"))
    before = log(tmp_path).read_bytes()
    with pytest.raises(BudgetExhausted, match=r"epsilon to .* limit is .*delta 1e-05, unit person, accountant pld"):
        ledger.reserve(release("run/2"))
    assert log(tmp_path).read_bytes() == before
    assert ledger.spent().epsilon == ONE
    ledger.reserve(release("run/2", group="cards/held-out"))  # other people
    assert ledger.spent().epsilon == ONE


def test_the_limit_itself_may_be_reached_and_counts_across_runs(tmp_path: Path) -> None:
    opened(tmp_path, limit=TWO).reserve(release("run-a/1"))
    ledger = opened(tmp_path, limit=TWO)
    ledger.reserve(release("run-b/1"))
    assert ledger.spent().epsilon == TWO
    with pytest.raises(BudgetExhausted):
        ledger.reserve(release("run-c/1", OTHER))


def test_a_release_without_noise_never_fits_a_finite_limit(tmp_path: Path) -> None:
    bare = Event("poisson-gaussian", 0.05, 0.0, 20)
    with pytest.raises(BudgetExhausted):
        opened(tmp_path, limit=1e6).reserve(release("run/1", bare))
    assert opened(tmp_path).spent().epsilon == 0.0
    opened(tmp_path, limit=math.inf).reserve(release("run/1", bare))
    assert opened(tmp_path).spent().epsilon == math.inf


def test_whether_a_round_can_be_paid_is_asked_without_paying_it(tmp_path: Path) -> None:
    ledger = opened(tmp_path, limit=ONE)
    ledger.reserve(release("run/1"))
    before = log(tmp_path).read_bytes()
    with pytest.raises(BudgetExhausted, match=f"to {TWO:.4g}"):
        ledger.afford(release("run/2"))
    ledger.afford(replace(release("run/2"), charges=(Charge("cards/training:b", EVENT),)))
    assert ledger.spent().epsilon == ONE
    assert log(tmp_path).read_bytes() == before


def test_only_the_last_two_updates_are_kept_and_an_older_one_is_not_made_again(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    for number in range(1, 5):
        ledger.reserve(release(f"run/{number}"))
        ledger.seal(f"run/{number}", b"update %d" % number)
    assert len(list((tmp_path / "ledger" / "sealed").iterdir())) == 2
    assert (ledger.sealed("run/3"), ledger.sealed("run/4")) == (b"update 3", b"update 4")
    with pytest.raises(PrivacyError, match="not here any more"):
        ledger.sealed("run/2")
    with pytest.raises(PrivacyError, match="sealed"):
        ledger.reserve(release("run/2"))


def test_an_acknowledged_update_makes_room_first(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    for number in range(1, 4):
        ledger.reserve(release(f"run/{number}"))
        ledger.seal(f"run/{number}", b"update %d" % number)
        if number == 2:
            ledger.acknowledge(ledger.receipt())
    assert (ledger.sealed("run/1"), ledger.sealed("run/3")) == (b"update 1", b"update 3")
    with pytest.raises(PrivacyError, match="not here any more"):
        ledger.sealed("run/2")


def test_a_damaged_or_missing_update_is_refused_not_trained_again(tmp_path: Path) -> None:
    ledger = filled(tmp_path)
    (file,) = (tmp_path / "ledger" / "sealed").iterdir()
    file.write_bytes(b"fIrst")
    with pytest.raises(PrivacyError, match="not here any more"):
        ledger.sealed("run/1")
    file.unlink()
    with pytest.raises(PrivacyError, match="not here any more"):
        ledger.sealed("run/1")


@pytest.mark.parametrize(("field", "value"), [("site", "cards-2"), ("unit", "record")])
def test_a_ledger_belongs_to_one_site_and_one_unit(tmp_path: Path, field: str, value: str) -> None:
    filled(tmp_path)
    with pytest.raises(PrivacyError, match=f"{field} '.*', not '{value}'"):
        opened(tmp_path, **{field: value})


def test_and_to_one_adjacency(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path)
    monkeypatch.setattr("llmchain_fl.core.privacy.store.ADJACENCY", "replace-one")
    with pytest.raises(PrivacyError, match="adjacency 'add-or-remove-one', not 'replace-one'"):
        opened(tmp_path)


def test_the_data_holder_may_restate_delta_accountant_and_limit(tmp_path: Path) -> None:
    filled(tmp_path)
    looser = FileLedger(tmp_path / "ledger", tmp_path / "anchor", Terms("cards", "person", 1e-6, "rdp", 3.0))
    assert looser.spent().epsilon == epsilon([EVENT, OTHER], 1e-6, "rdp")


def test_the_log_holds_mechanisms_and_no_epsilon(tmp_path: Path) -> None:
    filled(tmp_path).acknowledge("")
    entries = [json.loads(line) for line in log(tmp_path).read_text().splitlines()]
    assert [entry["type"] for entry in entries] == ["open", "reserve", "seal", "reserve"]
    assert entries[1]["charges"] == [
        {
            "group": "cards/training",
            "event": {"kind": "poisson-gaussian", "sampling_rate": 0.05, "noise_multiplier": 1.0, "steps": 20},
        }
    ]
    told = {name: entries[1][name] for name in ("key", "plan", "purpose", "federation", "stage")}
    assert told == {"key": "run/1", "plan": "plan", "purpose": "training", "federation": "ward", "stage": "cards"}
    assert "epsilon" not in log(tmp_path).read_text()


@pytest.mark.parametrize(
    "terms",
    [
        ("cards", "person", 0.0, "pld", 1.0),
        ("cards", "house", 1e-5, "pld", 1.0),
        ("cards", "person", 1e-5, "gdp", 1.0),
        ("cards", "person", 1e-5, "pld", -1.0),
        ("cards", "person", 1e-5, "pld", math.nan),
    ],
)
def test_terms_that_could_promise_nothing_are_refused(terms: tuple[str, str, float, str, float]) -> None:
    with pytest.raises(PrivacyError, match="no such ledger"):
        Terms(*terms)


def test_a_site_needs_a_printable_name() -> None:
    for name in ("", "north\nsouth"):
        with pytest.raises(PrivacyError, match="site"):
            replace(TERMS, site=name)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("key", "", "key"),
        ("key", "k" * 501, "key"),
        ("charges", (), "0 charges"),
        ("purpose", "fun", "purpose 'fun'"),
        ("federation", 7, "federation"),
    ],
)
def test_a_release_that_says_too_little_is_refused(field: str, value: object, told: str) -> None:
    with pytest.raises(PrivacyError, match=told):
        replace(release("run/1"), **{field: value})
    with pytest.raises(PrivacyError, match="group"):
        Charge("", EVENT)


@pytest.mark.parametrize("odd", ["a\nb", "\x1b[2J", "\x00", "\u2028", "\u202e", "\u200b", "\ud800", "\x7f"])
def test_no_name_in_a_release_can_move_a_cursor_or_forge_a_line(odd: str) -> None:
    for field in ("key", "plan", "federation", "stage"):
        with pytest.raises(PrivacyError, match=f"the {field} of a release is not a printable text") as caught:
            replace(release("run/1"), **{field: odd})
        assert odd not in str(caught.value)
    with pytest.raises(PrivacyError, match="group"):
        Charge(f"cards/training:{odd}", EVENT)


def test_a_release_of_any_printable_names_is_read_back_as_it_was(tmp_path: Path) -> None:
    odd = Release('r"\\ä/1', (Charge("ä/training:\u6f22[red]", SCORES),), "", "scores", "", "a b")
    opened(tmp_path).reserve(odd)
    opened(tmp_path).reserve(odd)
    opened(tmp_path).seal(odd.key, b"x")
    assert opened(tmp_path).sealed(odd.key) == b"x"


def test_a_run_without_noise_needs_no_ledger() -> None:
    ledger: Ledger = NullLedger()
    ledger.reserve(release("run/1", Event("poisson-gaussian", 0.05, 0.0, 20)))
    ledger.seal("run/1", b"x")
    ledger.acknowledge("whatever")
    (may,) = ledger.reserve(release("run/1", Event("gaussian", 1.0, 0.0, 1)), [("cards/training", ["ann", "bob"])])
    assert may.tolist() == [True, True]
    assert ledger.seal_of("run/1") == ""
    assert ledger.sealed("run/1") is None
    assert ledger.receipt() == ""


def test_a_private_round_is_not_accepted_by_a_ledger_that_forgets() -> None:
    bare = Charge("cards/training", Event("poisson-gaussian", 0.05, 0.0, 20))
    noised = replace(release("run/1"), charges=(bare, Charge("held-out", SCORES)))
    for call in (NullLedger().afford, NullLedger().reserve):
        with pytest.raises(PrivacyError, match="not be recorded"):
            call(noised)


def test_everything_the_ledger_owns_is_its_owners_alone_also_when_it_was_not(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        ledger = filled(tmp_path)
        ledger.reserve(release("run/3"), [("cards/training", ["ann"])])
        owned = [tmp_path / "anchor", *(tmp_path / "ledger").rglob("*"), tmp_path / "ledger"]
        for path in owned[1:]:
            path.chmod(0o777 if path.is_dir() else 0o666)
        opened(tmp_path).spent()
    finally:
        os.umask(before)
    assert len(owned) >= 8
    assert {path.stat().st_mode & 0o777 for path in owned} == {0o600, 0o700}
    assert all((path.stat().st_mode & 0o777 == 0o700) == path.is_dir() for path in owned)


def test_the_seal_of_a_release_is_known_also_when_its_bytes_are_gone(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    for number in range(1, 5):
        ledger.reserve(release(f"run/{number}"))
        ledger.seal(f"run/{number}", b"update %d" % number)
    assert ledger.seal_of("run/1") == hashlib.sha256(b"update 1").hexdigest()
    ledger.reserve(release("run/5"))
    assert ledger.seal_of("run/5") == ledger.seal_of("run/6") == ""


def test_what_can_be_afforded_is_known_before_it_is_reserved(tmp_path: Path) -> None:
    ledger = opened(tmp_path, limit=ONE)
    ledger.reserve(release("run/1"))
    before = log(tmp_path).read_bytes()
    ledger.afford(release("run/1"))
    with pytest.raises(BudgetExhausted):
        ledger.afford(release("run/2"))
    with pytest.raises(PrivacyError, match="something else"):
        ledger.afford(release("run/1", OTHER))
    ledger.seal("run/1", b"x")
    with pytest.raises(PrivacyError, match="is sealed"):
        ledger.afford(release("run/1"))
    ledger.afford(release("run/2", group="cards/held-out"))
    assert len(log(tmp_path).read_bytes().splitlines()) == len(before.splitlines()) + 1
