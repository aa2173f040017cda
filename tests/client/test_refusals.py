"""Whatever goes wrong at a site, one code word leaves it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import RecordDict

import client.app
import client.rounds
from client.app import describe, site_of
from client.site import SiteLimits
from llmchain_fl.core.errors import BudgetExhausted, DataError
from llmchain_fl.core.wire import write_refusal
from llmchain_fl.replies import read_reply

CANARY = "Jane-Canary-1970"
Cause = Callable[[Any, pytest.MonkeyPatch], RecordDict]


def after(change: Callable[[Any], object]) -> Cause:
    """Ask for a round once the site was changed."""

    def cause(ward: Any, _: pytest.MonkeyPatch) -> RecordDict:
        change(ward)
        return ward.train(ward.work())

    return cause


def table(content: str) -> Cause:
    """Ask a site whose records are this table."""

    def change(ward: Any) -> None:
        (ward.folder / "cards.csv").write_text(content, encoding="utf-8")
        ward.data = {"train": str(ward.folder / "{stage}.csv")}

    return after(change)


def limits(**values: Any) -> Cause:
    """Ask under other limits."""
    given = {"units": ["record"], "epsilon": 60.0, **values}
    return after(lambda ward: setattr(ward, "limits", SiteLimits(**given)))


def asked(**changes: Any) -> Cause:
    """Ask with another message; a callable is given the site."""

    def cause(ward: Any, _: pytest.MonkeyPatch) -> RecordDict:
        found = {key: value(ward) if callable(value) else value for key, value in changes.items()}
        return ward.train(ward.work(), **found)

    return cause


def planned(**changes: Any) -> Cause:
    """Ask with another privacy plan for the same loop."""
    return lambda ward, _: ward.train(ward.work(plan=changes))


def unprotected(ward: Any, _: pytest.MonkeyPatch) -> RecordDict:
    """A site that would train without privacy, and a plan that only looks like some."""
    ward.limits = SiteLimits(units=["record"], require_privacy=False, epsilon=1e9)
    return ward.train(ward.work(plan={"noise_multiplier": 0.0}))


def scored(kind: str, **plan: Any) -> Cause:
    """Ask a site that shares scores in this way for some."""

    def cause(ward: Any, _: pytest.MonkeyPatch) -> RecordDict:
        ward.limits = SiteLimits(units=["record"], scores=kind)
        return ward.score(ward.work(plan=plan))

    return cause


def set_back(ward: Any, _: pytest.MonkeyPatch) -> RecordDict:
    """A site whose whole disk shows an older state than the server has seen."""
    work = ward.work()
    ward.train(work)
    ward.back_up()
    receipt = read_reply(ward.train(work, round=2)).receipt
    ward.set_back()
    return ward.train(work, round=3, receipt=receipt)


def raising(place: str, error: Exception, inner: Exception | None = None) -> Cause:
    """A part of the round fails with this error, perhaps caused by another."""

    def fail(*_: object) -> None:
        raise error from inner

    def cause(ward: Any, patch: pytest.MonkeyPatch) -> RecordDict:
        patch.setattr(f"client.{place}", fail)
        return ward.train(ward.work())

    return cause


READING, TRAINING = "app.site_records", "rounds.loop_of"
"""Before and after the round is paid for."""


def opened(open_site: Callable[[Any], Any]) -> Cause:
    """Greet a node that finds its site in this way."""
    return lambda ward, _: ward.send(RecordDict(), "query", open_site)


def other_shapes(ward: Any) -> dict[str, Any]:
    return {name: value[:1] for name, value in ward.start(ward.work()).items()}


def other_names(ward: Any) -> dict[str, Any]:
    return {**ward.start(ward.work()), "x.lora_B": np.zeros(2, np.float32)}


REFUSALS: dict[str, tuple[str, Cause]] = {
    "a missing file": ("data", after(lambda ward: (ward.folder / "cards.jsonl").unlink())),
    "a stage without records": ("data", asked(stage_name="loans")),
    "a table without a column that is asked for": ("data", table(f"note,label\n{CANARY},rates\n")),
    "a table without a header": ("data", table(f"{CANARY},rates\n")),
    "work that is no JSON": ("wire", asked(work=f"{{{CANARY}")),
    "work with an unknown field": ("wire", asked(work=lambda ward: ward.work().to_json()[:-1] + f', "{CANARY}": 1}}')),
    "a message without content": ("wire", lambda ward, _: ward.send(RecordDict(), "train")),
    "a stage that leads out of the folder": ("wire", asked(stage_name="../other")),
    "a stage that is a path": ("wire", asked(stage_name="a/cards")),
    "arrays that are missing": ("wire", asked(arrays={})),
    "arrays of another shape": ("model", asked(arrays=other_shapes)),
    "arrays of another model": ("model", asked(arrays=other_names)),
    "no privacy": ("privacy", lambda ward, _: ward.train(ward.work(private=False))),
    "a larger delta": ("privacy", planned(delta=1e-3)),
    "a plan that pays for fewer steps": ("privacy", planned(steps_per_round=1)),
    "a plan that pays for a smaller rate": ("privacy", planned(sampling_rate=0.001)),
    "a plan with another divisor": ("privacy", planned(divisor=1.0)),
    "a plan without noise": ("privacy", planned(noise_multiplier=0.0)),
    "a plan without noise where privacy is not asked for": ("budget", unprotected),
    "hardly any noise": ("budget", planned(noise_multiplier=1e-3)),
    "a unit that the site does not accept": ("privacy", limits(units=["person"])),
    "no unit that the site accepts": ("privacy", limits(units=[])),
    "a receipt that nobody wrote": ("privacy", asked(receipt="x" * 188)),
    "a receipt in another alphabet": ("privacy", asked(receipt="é")),
    "a ledger that was set back": ("privacy", set_back),
    "the name of a run that fits on no line": ("wire", asked(run="r" * 501)),
    "the name of a federation that fits on no line": ("wire", asked(federation="f" * 501)),
    "a budget that is too small": ("budget", limits(epsilon=0.01)),
    "a base model that is not allowed": ("model", limits(base_models=["minilm"])),
    "too many steps": ("privacy", limits(max_steps=2)),
    "a learning rate of zero": ("wire", asked(lr=0.0)),
    "a learning rate that is not finite": ("wire", asked(lr=float("nan"))),
    "a foreign error that quotes a record": ("error", raising(READING, RuntimeError(f"token {CANARY}"))),
    "a foreign error that holds a record": (
        "error",
        raising(READING, UnicodeDecodeError("utf-8", CANARY.encode(), 0, 1, CANARY)),
    ),
    "a foreign error without memory": ("error", raising(READING, MemoryError(CANARY))),
    "an error of ours caused by one that quotes a record": (
        "data",
        raising(READING, DataError("one of ours", where="cards.jsonl:3", remedy="none"), ValueError(CANARY)),
    ),
    "a foreign error after the round was paid for": ("training", raising(TRAINING, RuntimeError(f"token {CANARY}"))),
    "an error of ours after the round was paid for": (
        "training",
        raising(TRAINING, DataError("one of ours", where="cards.jsonl:3", remedy="none"), ValueError(CANARY)),
    ),
    "a node without a site": ("config", opened(site_of)),
    "a site that fails to open": ("error", opened(lambda context: {}[CANARY])),
    "scores that are not shared": ("privacy", lambda ward, _: ward.score(ward.work())),
    "scores without the noise that is asked for": ("privacy", scored("noised")),
    "noised scores for a unit that the site does not accept": (
        "privacy",
        scored("noised", unit="person", score_noise=2.0),
    ),
    "scores with a larger delta": ("privacy", scored("noised", unit="person", score_noise=2.0, delta=1e-3)),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_every_fault_becomes_one_code_word_and_no_word_of_a_record(
    name: str, ward: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wire_bytes: Any
) -> None:
    expected, cause = REFUSALS[name]
    monkeypatch.delenv("LLMCHAIN_FL_SITES_DIR", raising=False)
    with caplog.at_level(logging.DEBUG):
        content = cause(ward, monkeypatch)
    assert set(content) == {"config"}
    assert dict(content.config_records["config"]) == {"refused": expected}
    said = wire_bytes(content)
    assert CANARY.encode() not in said
    assert b"/" not in said
    assert len([record for record in caplog.records if record.name == "llmchain_fl.client"]) == 1
    for record in caplog.records:
        assert record.exc_info is None
        assert CANARY not in record.getMessage().replace(str(ward.folder), "")  # its own folder may be named: see below


def test_the_same_check_would_see_a_text_that_leaves(
    ward: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wire_bytes: Any
) -> None:
    """Negative control: with the text of the error in log and reply, the record is found in both."""
    monkeypatch.setattr(client.app, "describe", str)
    monkeypatch.setattr(client.app.outbox, "refuse", lambda error: write_refusal(str(error)))
    content = raising(READING, RuntimeError(f"token {CANARY}"))(ward, monkeypatch)
    assert CANARY.encode() in wire_bytes(content)
    assert CANARY in caplog.records[-1].getMessage()


def test_the_sites_own_log_names_file_and_column_of_our_errors(ward: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever runs the site must be able to repair it."""
    table("text,department\nx,unheard\n")(ward, pytest.MonkeyPatch())
    assert "data: " in caplog.text
    assert str(ward.folder / "cards.csv") in caplog.text
    assert "label" in caplog.text
    assert "unheard" not in caplog.text


def test_a_foreign_error_is_described_by_type_and_place_of_our_code() -> None:
    with pytest.raises(AttributeError) as caught:
        site_of(None)  # type: ignore[arg-type]
    said = describe(caught.value)
    assert said.startswith("AttributeError at client/app.py:")
    assert said.rsplit(":", 1)[1].isdigit()
    assert describe(RuntimeError(CANARY)) == "RuntimeError at an unknown place"


def test_the_innermost_place_of_our_code_is_named_and_not_a_librarys(small: Any) -> None:
    task = small.task()
    with pytest.raises(IndexError) as caught:
        task.forward(task.encode(small.rows(2)), [99])
    assert describe(caught.value).startswith("IndexError at tasks/base.py:")


def test_an_error_of_ours_is_described_by_its_code_and_its_words() -> None:
    error = BudgetExhausted("the next round would pass", remedy="stop")
    assert describe(error) == "budget: the next round would pass\n  -> stop"


def test_a_program_that_is_told_to_stop_stops(ward: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(client.rounds, "loop_of", stop)
    with pytest.raises(KeyboardInterrupt):
        ward.train(ward.work())
