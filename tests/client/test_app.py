from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, RecordDict

import client.app
import client.rounds
import client.scores
import llmchain_fl.core.privacy.units
from client.app import site_of
from client.site import SiteLimits
from llmchain_fl import __version__
from llmchain_fl.core.adapter.digest import digest
from llmchain_fl.core.array_record import unpack
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.messages import PROTOCOL, HelloReply
from llmchain_fl.core.privacy.receipt import CHARACTERS
from llmchain_fl.core.wire import write_hello
from llmchain_fl.core.work import inference, open_work
from llmchain_fl.replies import Refusal, Scores, Update, read_hello, read_reply


def update(content: RecordDict) -> Update:
    reply = read_reply(content)
    assert isinstance(reply, Update), reply
    return reply


def code(content: RecordDict) -> str:
    reply = read_reply(content)
    assert isinstance(reply, Refusal)
    return reply.code


def without_receipt(content: RecordDict) -> RecordDict:
    """A reply but for the receipt, which is a new one each time: it says how far the ledger is now."""
    assert len(str(content.config_records["config"].pop("receipt"))) == CHARACTERS
    return content


def limits(**values: Any) -> SiteLimits:
    return SiteLimits(**{"units": ["record"], "epsilon": 60.0, **values})


@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize("head", ["label-text", "trained"])
def test_a_reply_holds_the_changed_arrays_the_round_and_the_version_and_nothing_else(
    ward: Any, private: bool, head: str
) -> None:
    ward.limits = limits(require_privacy=private)
    work = ward.work(private=private, head=head)
    content = ward.train(work, round=3)
    assert set(content) == {"arrays", "config"}
    told = dict(content.config_records["config"])
    assert len(str(told.pop("receipt"))) == (CHARACTERS if private else 0)
    assert told == {"round": 3, "version": __version__}
    assert list(content.metric_records) == []
    arrays = unpack(content.array_records["arrays"])
    assert set(arrays) == set(ward.start(work))
    for name, value in ward.start(work).items():
        assert arrays[name].shape == value.shape
        assert arrays[name].dtype == np.float32


def test_an_update_is_trained_minus_received(ward: Any) -> None:
    """Read off the model that is left in this process after the round."""
    work = ward.work()
    start = {name: value + np.float32(0.25) for name, value in ward.start(work).items()}
    delta = update(ward.train(work, arrays=start)).arrays
    resident, _ = open_work(work.resident, work.task)
    assert digest(delta) == digest({name: resident.arrays([name])[name] - start[name] for name in start})
    assert all(np.abs(value).max() > 0 for value in delta.values())


def test_the_local_result_is_seen_in_this_process_only(ward: Any) -> None:
    ward.train(ward.work())
    (site, task, result) = ward.watched[0]
    assert (site.name, task.round, result.steps) == ("ward", 1, 3)


# -- privacy ----------------------------------------------------------------------------------------------------------


def test_the_same_round_asked_twice_gives_identical_bytes_and_is_charged_once(ward: Any, wire_bytes: Any) -> None:
    work = ward.work()
    first = wire_bytes(without_receipt(ward.train(work)))
    assert wire_bytes(without_receipt(ward.train(work))) == first
    ward.restart()
    assert wire_bytes(without_receipt(ward.train(work))) == first
    assert ward.booked() == ["reserve", "seal"]
    assert len(ward.watched) == 1


def test_another_question_under_the_same_round_gets_the_same_bytes(ward: Any, wire_bytes: Any) -> None:
    """A server cannot have one round answered for two different adapters."""
    work = ward.work()
    first = wire_bytes(without_receipt(ward.train(work)))
    other = {name: value + 1 for name, value in ward.start(work).items()}
    assert wire_bytes(without_receipt(ward.train(work, arrays=other, lr=0.5))) == first


def test_each_round_and_each_run_is_charged(ward: Any) -> None:
    work = ward.work()
    sent = [update(ward.train(work, **key)).arrays for key in ({}, {"round": 2}, {"run": "run-2"})]
    assert ward.booked() == ["reserve", "seal"] * 3
    assert ward.reserved() == [("*", "poisson-gaussian", 3)] * 3
    assert len({digest(arrays) for arrays in sent}) == 3


def test_a_round_that_the_run_has_left_behind_costs_nothing(ward: Any, wire_bytes: Any) -> None:
    """A site that was away finds old rounds in the queue; who is asked for one it has sealed gets the same bytes."""
    work = ward.work()
    first = wire_bytes(without_receipt(ward.train(work, round=2)))
    ward.train(work, round=5)
    before = ward.events()
    assert code(ward.train(work, round=4)) == "wire"
    assert wire_bytes(without_receipt(ward.train(work, round=2))) == first
    ward.restart()
    assert code(ward.train(work, round=3)) == "wire"
    assert ward.events() == before
    update(ward.train(work, round=3, run="another-run"))
    update(ward.train(work, round=6))


def test_a_round_in_which_the_process_died_is_charged_once(ward: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    work = ward.work()
    with monkeypatch.context() as patch:
        patch.setattr(client.rounds, "loop_of", dies)
        with pytest.raises(KeyboardInterrupt):
            ward.train(work)
    ward.restart()
    update(ward.train(work))
    assert ward.booked() == ["reserve", "seal"]


def test_a_used_up_budget_is_refused_before_anything_is_computed(ward: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    work = ward.work()
    ward.train(work)
    spent = ward.site.ledger(work).spent().epsilon
    ward.limits = limits(epsilon=spent * 1.01)
    monkeypatch.setattr(client.rounds, "loop_of", lambda *_: pytest.fail("records were used"))
    before = ward.events()
    assert code(ward.train(work, round=2)) == "budget"
    assert ward.events() == before


def test_a_missing_file_costs_nothing(ward: Any) -> None:
    (ward.folder / "cards.jsonl").unlink()
    assert code(ward.train(ward.work())) == "data"
    assert ward.booked() == []


@pytest.mark.parametrize("private", [True, False])
def test_only_the_batches_of_a_private_round_cannot_be_repeated(
    ward: Any, monkeypatch: pytest.MonkeyPatch, private: bool
) -> None:
    """Amplification by sampling holds for batches that nobody can know: not from the run's public seed."""
    ward.limits = limits(require_privacy=private)
    drawn: list[list[list[int]]] = []
    plain = llmchain_fl.core.privacy.units.poisson_batches

    def spied(*args: Any) -> Any:
        batches = list(plain(*args))
        drawn.append([batch.tolist() for batch in batches])
        return batches

    monkeypatch.setattr(llmchain_fl.core.privacy.units, "poisson_batches", spied)
    first, second = (update(ward.train(ward.work(private=private), run=run)).arrays for run in ("a", "b"))
    assert (drawn[0] == drawn[1]) is not private
    assert (digest(first) == digest(second)) is not private


def test_without_privacy_a_round_is_repeatable_and_nothing_is_booked(ward: Any, wire_bytes: Any) -> None:
    ward.limits = limits(require_privacy=False)
    work = ward.work(private=False)
    assert wire_bytes(ward.train(work)) == wire_bytes(ward.train(work))
    assert wire_bytes(ward.train(work, round=2)) != wire_bytes(ward.train(work, round=1))
    assert ward.events() == []


# -- scores and names -------------------------------------------------------------------------------------------------


def test_a_greeting_holds_name_version_and_protocol_only(ward: Any) -> None:
    content = ward.send(write_hello(HelloReply("server")), "query")
    assert dict(content.config_records["config"]) == {"site": "ward", "version": __version__, "protocol": PROTOCOL}
    assert set(content) == {"config"}
    assert read_hello(content) == HelloReply("ward")


def test_scores_are_shared_only_where_the_policy_says_so(ward: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    work = ward.work()
    with monkeypatch.context() as patch:
        patch.setattr(client.scores, "site_records", lambda *_: pytest.fail("records were read"))
        assert code(ward.score(work)) == "privacy"
    ward.limits = limits(scores="exact")
    content = ward.score(work)
    assert set(content) == {"scores", "config"}
    reply = read_reply(content)
    assert isinstance(reply, Scores)
    resident, task = open_work(work.resident, work.task)
    resident.reset()
    assert reply == Scores(4, {"cards": task.score(task.encode(ward.small.rows(6, seed=9)))["accuracy"]})
    assert ward.booked() == []


def test_the_list_of_allowed_models_holds_for_scores_too(ward: Any) -> None:
    ward.limits = limits(scores="exact", base_models=["minilm"])
    assert code(ward.score(ward.work())) == "model"


def test_the_scored_adapter_is_the_one_that_was_sent(ward: Any) -> None:
    ward.limits = limits(scores="exact")
    work = inference(ward.work(head="trained"))
    arrays = ward.start(work)
    arrays["head.bias"] = np.float32([0, 0, 0, 1e6])
    reply = read_reply(ward.score(work, arrays=arrays))
    rows = ward.small.rows(6, seed=9)
    assert reply.values == {"cards": sum(row["label"] == "other" for row in rows) / 6}


# -- which site -------------------------------------------------------------------------------------------------------


def context(node: dict[str, Any], run: dict[str, Any]) -> Context:
    return Context(run_id=1, node_id=1, node_config=node, state=RecordDict(), run_config=run)


def test_a_node_finds_its_site_by_file_or_by_its_place_in_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "site.toml").write_text(f'name = "{name}"\n[data]\ntrain = "x"\n')
    assert site_of(context({"site": str(tmp_path / "b" / "site.toml")}, {"sites-dir": str(tmp_path)})).name == "b"
    assert site_of(context({"partition-id": 0}, {"sites-dir": str(tmp_path)})).name == "a"
    monkeypatch.setenv("LLMCHAIN_FL_SITES_DIR", str(tmp_path))
    assert site_of(context({"partition-id": 1}, {})).name == "b"
    with pytest.raises(ConfigError, match="2 site files"):
        site_of(context({"partition-id": 2}, {}))


@pytest.mark.parametrize("node", [{}, {"partition-id": 0}])
def test_a_node_without_a_site_is_told_how_to_get_one(node: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLMCHAIN_FL_SITES_DIR", raising=False)
    with pytest.raises(ConfigError, match="node-config"):
        site_of(context(node, {}))
