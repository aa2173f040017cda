"""Nothing leaves a site without a line in its audit log, and the log quotes nothing."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, RecordDict

from client.site import read_site
from llmchain_fl.audit_log import read_log
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.fingerprint import fingerprint
from llmchain_fl.onprem.site_notes import note
from llmchain_fl.replies import Refusal, read_reply


def entries(ward: Any) -> list[dict[str, Any]]:
    return read_log(ward.site.audit.file)


def test_every_message_is_a_line_with_what_came_in_and_what_left(hospital: Any) -> None:
    work = hospital.person_work(score_noise=5.0)
    hospital.send(RecordDict(), "query")
    update = hospital.train(work)
    scores = hospital.score(work, run="run-1")
    opened, hello, trained, scored = entries(hospital)
    assert (opened["side"], opened["name"]) == ("site", "ward")
    assert [one["kind"] for one in (hello, trained, scored)] == ["query", "train", "evaluate"]
    assert (trained["reply"], scored["reply"]) == (fingerprint(update).sha256, fingerprint(scores).sha256)
    assert (trained["run"], trained["round"], trained["decision"]) == ("run-1", 1, "answered")
    assert trained["reply_bytes"] > 0
    assert len(trained["work"]) == 64


def test_epsilon_before_and_after_are_the_ledgers(hospital: Any) -> None:
    work, told = hospital.person_work(), []
    for number in (1, 2):
        hospital.play(work, number)
        told.append(hospital.spent().epsilon)
    first, second = entries(hospital)[1:]
    assert (second["before"], second["ledger"]["epsilon"]) == (told[0], told[1])
    assert (first["ledger"]["delta"], first["ledger"]["unit"], first["ledger"]["accountant"]) == (1e-5, "person", "pld")
    assert second["ledger"]["head"] == hospital.events()[-1]["hash"]
    assert second["ledger"]["profiles"] == ["ward/training"]


def test_a_refusal_is_a_line_with_its_code_word_and_costs_nothing(hospital: Any) -> None:
    work = hospital.person_work()
    hospital.train(work, lr=float("nan"))
    hospital.limits = hospital.limits.model_copy(update={"epsilon": 1e-3})
    hospital.restart()
    hospital.train(work, round=2)
    lines = [(one["type"], one.get("decision")) for one in entries(hospital)]
    assert lines[1][1] not in ("answered", "unknown")
    assert lines[2:] == [("changed", None), ("answered", "budget")]
    assert all((one["ledger"] or {"epsilon": 0.0})["epsilon"] == 0.0 for one in entries(hospital))


def test_no_name_of_a_person_no_word_of_a_record_and_no_setting_is_in_the_log(hospital: Any) -> None:
    hospital.play(hospital.person_work(), 1)
    text = hospital.site.audit.file.read_text()
    rows = (hospital.folder / "cards.jsonl").read_text()
    for word in ("ann", "bob", str(hospital.folder), *(json.loads(rows.splitlines()[0])["text"].split())):
        assert f'"{word}' not in text
    assert "sampling_rate" not in text


@pytest.mark.parametrize("run", [7, "x" * 300, "a\nb", b"run"], ids=["number", "long", "two lines", "bytes"])
def test_a_run_that_is_no_name_is_entered_without_it(run: Any, ward: Any) -> None:
    ward.send(RecordDict({"config": ConfigRecord({"run": run, "round": -1})}), "train")
    line = entries(ward)[-1]
    assert (line["run"], line["round"], line["decision"]) == ("", 0, "wire")


def test_where_nothing_can_be_entered_a_word_leaves_and_nothing_else(
    hospital: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hospital.play(hospital.person_work(), 1)
    log = hospital.site.audit.file
    log.write_bytes(log.read_bytes() + b"no line\n")
    reply = hospital.train(hospital.person_work(), round=2)
    assert read_reply(reply) == Refusal("error")
    assert "nothing leaves, for it cannot be entered" in caplog.text
    log.unlink()
    assert not isinstance(read_reply(hospital.train(hospital.person_work(), round=2)), Refusal)  # sealed: sent now
    assert len([one for one in hospital.booked() if one == "reserve"]) == 2


def test_what_broke_off_before_its_reply_is_in_the_next_line(hospital: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    work = hospital.person_work()
    hospital.send(RecordDict(), "query")

    def killed(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr("client.outbox.release", killed)
        with pytest.raises(SystemExit):
            hospital.train(work)
    hospital.restart()
    hospital.send(RecordDict(), "query")
    last = entries(hospital)[-1]
    assert (last["kind"], last["before"]) == ("query", 0.0)
    assert last["ledger"]["epsilon"] == hospital.spent().epsilon > 0


def test_a_site_file_that_cannot_be_read_gives_a_word_and_no_log(ward: Any) -> None:
    def broken(_: object) -> Any:
        raise ConfigError(["no such file"])

    assert read_reply(ward.send(RecordDict(), "query", open_site=broken)) == Refusal("config")
    assert not ward.site.audit.file.exists()


def test_whoever_starts_stops_or_approves_is_a_line(ward: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    note(ward.site, "started", version="1")
    note(ward.site, "approved", what="code", sha256="0" * 64)
    note(ward.site, "stopped", why="done")
    assert [one["type"] for one in entries(ward)] == ["open", "started", "approved", "stopped"]
    assert all(one["by"].startswith("uid:") for one in entries(ward)[1:])


def test_a_site_is_known_by_the_bytes_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text('name = "north"\n[data]\ntrain = "x.csv"\n')
    before = read_site(file).policy
    assert read_site(file).policy == before
    file.write_text(file.read_text() + "# a remark\n")
    assert read_site(file).policy != before
