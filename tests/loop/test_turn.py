"""One turn over the tiny model: served, corrected, frozen, learned privately, gated, promoted; every step logged."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from llmchain_fl.chained_file import ChainedFile
from llmchain_fl.core.errors import ConfigError, RunError
from llmchain_fl.feedback.store import Store
from llmchain_fl.hub.trust import read_trust
from llmchain_fl.loop.settings import Loop, read_loop
from llmchain_fl.loop.turn import Outcome, play
from llmchain_fl.promote.line import Line

USERS, SITES = 6, ("site-00", "site-01", "site-02")
SEARCHES = importlib.util.find_spec("bm25s") is not None


def records(small: Any, name: str, count: int) -> str:
    """Records of so many persons, two each: whole label texts, which the tiny model can learn."""
    pairs = [(text, label) for label, text in small.labels.items() if len(text.split()) > 1]
    rows = [
        {
            "text": pairs[(n + k) % len(pairs)][0],
            "label": pairs[(n + k) % len(pairs)][1],
            "person": f"{name}{n}",
            "branch": f"branch-{n % len(SITES)}",
        }
        for n in range(count)
        for k in range(2)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def tree(small: Any, folder: Path) -> dict[str, Any]:
    """A loop's file over the tiny model; records of its users stand in a folder of splits."""
    (folder / "users").mkdir()
    (folder / "users" / "train.jsonl").write_text(records(small, "user", USERS), encoding="utf-8")
    (folder / "users" / "test.jsonl").write_text(records(small, "other", 20), encoding="utf-8")
    (folder / "records.jsonl").write_text(records(small, "p", 30), encoding="utf-8")
    passages = "".join(json.dumps({"id": n, "text": t, "label": n}) + "\n" for n, t in small.labels.items())
    (folder / "passages.jsonl").write_text(passages, encoding="utf-8")
    data = str(folder / "records.jsonl")
    policy = {"worse": 1.0, "worse_old": 1.0, "calibration": 1.0, "robustness": 1.0, "bias": 1.0, "fewest": 20}
    statement = {"data": "made-up", "intended_use": "tests", "refused_use": "all else", "licence": "Apache-2.0"}
    return {
        "seed": 3,
        "model": {"path": str(small.bert), "threads": 1, "max_tokens": 8},
        "adapter": {"rank": 2},
        "task": {"labels": sorted(small.labels), "head": "trained"},
        "data": {"train": data, "test": data, "baseline": 0},
        "sites": {"count": len(SITES), "partition": "column", "column": "branch"},
        "train": {"method": "lockstep", "sampling_rate": 0.5, "batch_size": 8, "lr": 0.02},
        "aggregation": {"rule": "head-only"},
        "secure": {"sum": True},
        "privacy": {"enabled": True, "noise": "sum", "epsilon": 30.0, "stages": "disjoint", "delta": 1e-3},
        "stage": [{"name": "first", "rounds": 1}],
        "loop": {
            "name": "bank",
            "users": str(folder / "users"),
            "count": USERS,
            "held_out": 40,
            "passages": str(folder / "passages.jsonl") if SEARCHES else "",
            "accuracy": 0.0,
            "rounds": 1,
            "lr": 0.02,
            "policy": {**policy, "epsilon": 30.0, "delta": 1e-3, "draws": 200,
                       "probe": [{"name": "public", "data": str(folder / "users"), "size": 40}]},
            "statement": statement,
        },
    }  # fmt: skip


@dataclass
class Played:
    """A turn that was played."""

    told: Loop
    out: Path
    found: Outcome
    lines: list[str]


@pytest.fixture(scope="module")
def played(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Played:
    folder = tmp_path_factory.mktemp("loop")
    (folder / "bank.toml").write_text(tomli_w.dumps(tree(small, folder)), encoding="utf-8")
    told, lines = read_loop(str(folder / "bank.toml")), list[str]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("server.app._write_pages", lambda run: None)
        found = play(told, folder / "out", lines.append)
    return Played(told, folder / "out", found, lines)


def test_every_message_of_a_user_is_asked_corrected_and_trained_on_at_its_own_site(played: Played) -> None:
    assert (played.found.talk.asked, played.found.records, played.found.persons) == (2 * USERS, 2 * USERS, USERS)
    people = []
    for site in SITES:
        file = played.out / "records" / f"{site}.jsonl"
        store = Store(played.out / "desks" / site / "feedback.sqlite")
        told = {(one.told.input, one.target(), one.told.person) for one in store.records("edition > 0")}
        store.close()
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        assert {(row["text"], row["label"], row["person"]) for row in rows} == told
        dealt = played.out / "run" / "sites" / site / "feedback.jsonl"
        assert sorted(dealt.read_text().splitlines()) == sorted(file.read_text().splitlines())
        people.append({row["person"] for row in rows})
    assert len(set().union(*people)) == sum(map(len, people))


def test_what_was_learned_is_published_as_a_child_and_promoted_with_a_card_that_names_the_stage(played: Played) -> None:
    assert played.found.promoted
    line, trust = Line(played.out / "line"), read_trust(played.out / "home")
    served = line.served(trust)
    assert served.label == "bank@2"
    assert [entry["type"] for entry in line.history()] == ["promoted", "promoted"]
    assert served.parent == line.history()[0]["address"]
    text = (served.folder / "card.json").read_text(encoding="utf-8")
    assert '"feedback"' in text
    assert "user" not in text, "no person of the store stands in the card"


def test_every_step_is_a_line_of_the_chain_and_no_line_holds_a_text_or_a_person(played: Played) -> None:
    kinds = [entry["type"] for entry in ChainedFile(played.out / "loop.jsonl", "none").lines()]
    sites = ["served"] * len(SITES) + ["reviewed", "frozen"] * len(SITES)
    assert kinds == ["trained", "published", "promoted", *sites, "learned", "published", "promoted", "ended"]
    text = (played.out / "loop.jsonl").read_text()
    assert not any(word in text for word in ("user0", "card lost", *played.told.config.task.labels))
    said = [line.split(":")[0] for line in played.lines]
    rounds = [line for line in said if line.startswith("round ")]
    assert said == [*rounds, *kinds]
    assert rounds == [f"round {number} of {len(rounds)}" for number in range(1, len(rounds) + 1)]
    (played.out / "torn.jsonl").write_text(text.replace("learned", "earned", 1))
    with pytest.raises(RunError, match="was changed"):
        ChainedFile(played.out / "torn.jsonl", "none").lines()


@pytest.mark.thorough
def test_the_stage_of_corrections_costs_its_own_persons_within_the_budget(played: Played) -> None:
    told = json.loads((played.out / "run" / "privacy.json").read_text())
    assert told["stages"] == "disjoint"
    assert 0 < played.found.epsilon <= 30.0
    assert json.loads((played.out / "outcome.json").read_text())["records"] == played.found.records


def test_the_rise_is_that_of_the_same_messages_with_its_margin(played: Played) -> None:
    found = played.found
    assert found.held_out == 40
    assert found.gain == pytest.approx(found.after - found.before)
    assert found.margin > 0


def test_a_loop_that_cannot_be_played_says_why_before_anything_is_done(small: Any, tmp_path: Path) -> None:
    file, told = tmp_path / "bank.toml", tree(small, tmp_path)

    def faulty(**changes: Any) -> str:
        file.write_text(tomli_w.dumps({**told, "loop": {**told["loop"], **changes}}), encoding="utf-8")
        with pytest.raises(ConfigError) as error:
            read_loop(str(file))
        return str(error.value)

    assert "did you mean rounds" in faulty(round=3)
    assert "licence" in faulty(statement={"data": "x"})
    assert "worse" in faulty(policy={**told["loop"]["policy"], "worse": 7})
    assert 'there is a stage "first" already' in faulty(stage="first")
    with pytest.raises(ConfigError, match="did you mean customer-service"):
        read_loop("customer-servic")


def test_the_shipped_loop_is_sound() -> None:
    told = read_loop("customer-service", ["loop.count=7"])
    assert told.loop.count == 7
    assert told.policy.epsilon == told.config.privacy.epsilon


@pytest.mark.thorough
@pytest.mark.slow
def test_customer_service_gains_at_least_three_points_and_is_promoted(tmp_path: Path) -> None:
    pytest.importorskip("bm25s", reason="the extra retrieval is not installed")
    found = play(read_loop("customer-service"), tmp_path / "out")
    assert found.persons == 200
    assert found.epsilon <= 8.0
    assert found.gain >= 0.03
    assert found.promoted, found.failed
