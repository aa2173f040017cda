"""What is said before a site joins: ok, warning or refusal; never a record."""

from __future__ import annotations

import shutil
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmchain_fl.config.read import read_config
from llmchain_fl.core.privacy.accounting import epsilon
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.core.privacy.release import Charge, Release
from llmchain_fl.onprem.certificates import Signed, make_authority, make_server, utc_now
from llmchain_fl.onprem.keys import make_keys
from llmchain_fl.onprem.reach import Seen, look
from llmchain_fl.onprem.site_check import CHECKS, check_site
from llmchain_fl.onprem.site_check.budget import check_budget, events_here
from llmchain_fl.onprem.site_check.coordinator import check_coordinator
from llmchain_fl.onprem.site_check.keys import check_keys
from llmchain_fl.onprem.site_check.machine import check_machine
from llmchain_fl.onprem.site_check.records import check_records
from llmchain_fl.onprem.site_check.software import check_software
from llmchain_fl.planning.findings import Findings
from llmchain_fl.planning.forecast import forecast
from llmchain_fl.report.wording import epsilon_text

DAY = timedelta(days=1)
Check = Callable[[Any, Findings], None]


def lines(check: Check, subject: Any) -> list[str]:
    """``LEVEL about: text`` of each line."""
    found = Findings()
    check(subject, found)
    assert all(one.remedy for one in found if one.level != "fact")
    return [f"{one.level} {one.about}: {one.text}" for one in found]


def said(check: Check, subject: Any, words: str) -> str:
    """The level of the one line that holds ``words``."""
    (line,) = [line for line in lines(check, subject) if words in line]
    return line.split()[0]


def test_a_sound_site_has_no_line_but_ok_about_its_records(kit: Any) -> None:
    found = lines(check_records, kit.subject())
    assert 'fact records: stage "first": 20 records, 10 persons, at most 2 of one, 2 labels' in found
    assert 'fact records: stage "second": 20 records, 20 persons, at most 1 of one, 1 labels' in found
    assert {line.split()[0] for line in found if "records" in line} == {"fact"}
    assert any(line.startswith("fact texts: 40 texts") or "are unknown" in line for line in found)


LEFT = [("lost card", "transfer", "p"), ("", "transfer", "p1"), ("no person", "transfer", ""), ("x", "another", "p2")]


@pytest.mark.parametrize(
    ("rows", "level", "words"),
    [
        (LEFT, "warning", "1 left out: a column 'text' that is empty or missing"),
        (LEFT, "warning", "1 left out: a column 'person' that is empty or missing"),
        (LEFT, "warning", "1 left out: a label that is not in the public label list of 3 labels"),
        ([("x", "another", "p")], "fault", "no record fits"),
        ([], "fault", "no record fits"),
        ([("a", "rates", "p")] * 3, "warning", "no record has one of its 2 labels"),
        ([("a", "transfer", "p")] * 3, "fact", "1 of its 2 labels have records here"),
    ],
)
def test_each_fault_of_records_is_counted(kit: Any, rows: Any, level: str, words: str) -> None:
    kit.records("first", rows)
    assert said(check_records, kit.subject(), words) == level


def test_a_stage_without_a_file_and_a_file_without_a_column_are_refusals(kit: Any) -> None:
    kit.records("second", kit.rates).write_text("note,patient\na,b\n")
    (kit.tree.site("north") / "records" / "first.csv").unlink()
    found = lines(check_records, kit.subject())
    assert [line.split()[0] for line in found if "records" in line] == ["fault", "fault"]


def test_texts_that_are_cut_or_unknown_to_the_base_are_told(kit: Any) -> None:
    kit.records("first", [("zzz " * 5, "transfer", f"p{i}") for i in range(40)])
    kit.records("second", [("card " * 30, "rates", f"p{i}") for i in range(3)])
    assert said(check_records, kit.subject(), "are unknown to the base's tokenizer") in ("fault", "warning")
    kit.records("second", [("card " * 30, "rates", f"p{i}") for i in range(30)])
    assert said(check_records, kit.subject(), "are cut at model.max_tokens = 12") == "warning"


def test_somebody_twice_is_told_where_the_unit_is_one_record(kit: Any) -> None:
    subject = kit.subject()
    plan = replace(
        subject.plan, config=read_config(kit.tree.site("north") / "scenario.toml", ['privacy.unit="record"'])
    )
    assert said(check_records, replace(subject, plan=plan), "the unit is one record, and somebody has 2") == "warning"


def test_a_delta_that_publishing_somebody_whole_would_satisfy_is_told(kit: Any) -> None:
    subject = kit.subject()
    wide = subject.site.model_copy(update={"limits": subject.site.limits.model_copy(update={"delta": 0.05})})
    assert said(check_records, replace(subject, site=wide), "is not below 1 / 20") == "warning"


def test_records_that_others_may_read_are_told(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmchain_fl.onprem.site_check.records.readable_by_others", lambda path: path.stem == "first")
    assert said(check_records, kit.subject(), "others on this machine may read") == "warning"


def test_without_a_plan_the_stages_are_those_of_the_files(kit: Any) -> None:
    subject = kit.subject(plan=None)
    found = lines(check_records, subject)
    assert [line.split(":")[1] for line in found] == [' stage "first"', ' stage "second"']
    shutil.rmtree(kit.tree.site("north") / "records")
    assert said(check_records, subject, "nothing matches") == "fault"


SECRET = "Zyzzyva9"


CELLS = st.sampled_from([SECRET, "", f"{SECRET}\n{SECRET}", f"{SECRET}\x00", "card"])
TAILS = st.sampled_from(["", SECRET, f'"{SECRET}', f"\n{SECRET},{SECRET}", f"\n{SECRET},\xff\ufffd,{SECRET}"])


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=4), TAILS)
def test_no_line_holds_anything_of_a_record(kit: Any, rows: list[tuple[str, str, str]], tail: str) -> None:
    file = kit.records("first", rows)
    file.write_text(file.read_text() + tail)
    kit.records("second", [(SECRET, "rates", SECRET)])
    assert not [line for line in lines(check_records, kit.subject()) if SECRET in line]


def test_a_header_that_is_a_record_is_not_shown(kit: Any) -> None:
    kit.records("first", []).write_text(f"{SECRET},{SECRET},{SECRET}\n")
    assert not [line for line in lines(check_records, kit.subject()) if SECRET in line]


def test_a_check_that_fails_unforeseen_names_its_kind_and_nothing_else(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(subject: Any, found: Findings) -> None:
        raise ValueError(SECRET)

    monkeypatch.setattr("llmchain_fl.onprem.site_check.CHECKS", {"records": broken})
    (one,) = check_site(kit.subject())
    assert (one.level, one.text) == ("fault", "could not be checked (ValueError)")


def test_without_a_kit_and_a_plan_it_is_said_what_is_not_checked(kit: Any) -> None:
    found = check_site(kit.subject(kit=None, plan=None))
    assert [one.about for one in found if "not checked" in one.text] == ["kit", "plan"]
    assert not {"coordinator", "keys", "code"} & {one.about for one in found}
    assert set(CHECKS) == {"records", "machine", "keys", "coordinator", "software", "budget"}


def test_nothing_at_the_site_is_written_by_a_check(kit: Any) -> None:
    spend(kit)
    before = {path: path.stat().st_mtime_ns for path in kit.tree.root.rglob("*")}
    check_site(kit.subject())
    assert {path: path.stat().st_mtime_ns for path in kit.tree.root.rglob("*")} == before


# the machine


def test_a_kit_as_it_was_made_is_its_owners_alone(kit: Any) -> None:
    found = lines(check_machine, kit.subject())
    assert [line.split()[0] for line in found] == ["fact", "fact", "fact"]


@pytest.mark.parametrize("name", ["keys/node.key", "keys/identity.key", "keys", "", "state"])
def test_what_others_may_read_or_enter_is_a_refusal(kit: Any, name: str) -> None:
    (kit.tree.site("north") / "state").mkdir(mode=0o700)
    (kit.tree.site("north") / name).chmod(0o750)
    assert said(check_machine, kit.subject(), "others on this machine may enter or read") == "fault"


@pytest.mark.parametrize(("free_mb", "level"), [(100, "fault"), (1000, "warning"), (9000, "fact")])
def test_disk(kit: Any, free_mb: int, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(kit.folder)._replace(free=free_mb * 2**20)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    assert said(check_machine, kit.subject(), "MB free where state is") == level


@pytest.mark.parametrize(("memory", "level"), [((500, 400), "fault"), ((9000, 100), "warning"), ((9000, 8000), "fact")])
def test_memory(kit: Any, memory: tuple[int, int], level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmchain_fl.onprem.site_check.machine.memory_mb", lambda: memory)
    assert said(check_machine, kit.subject(), "a round needs some 57") == level


def test_the_estimate_is_that_of_a_site(kit: Any) -> None:
    from client import trial
    from llmchain_fl.onprem.site_check import machine

    assert (machine.PROCESS_MB, machine.TOKEN_BYTES) == (trial.PROCESS_MB, trial.TOKEN_BYTES)


# keys


def test_the_keys_of_the_kit_are_those_that_are_entered(kit: Any) -> None:
    found = lines(check_keys, kit.subject())
    assert [line.split()[0] for line in found] == ["fact", "fact"]
    assert kit.subject().kit.fingerprint in found[1]


def test_other_keys_missing_keys_and_another_sites_kit_are_refusals(kit: Any) -> None:
    folder = kit.tree.site("north")
    wrong = kit.subject(kit=kit.subject("south").kit)
    assert said(check_keys, wrong, "the kit is of south") == "fault"
    shutil.rmtree(folder / "keys")
    assert said(check_keys, kit.subject(), "is not there") == "fault"
    make_keys(folder, "north")
    assert said(check_keys, kit.subject(), "are not those that the coordinator has entered") == "fault"


def test_peers_that_the_kit_does_not_know_are_a_warning(kit: Any) -> None:
    subject = kit.subject()
    peers = {**subject.site.secure.peers, "east": "ed25519:" + "00" * 32}
    site = subject.site.model_copy(update={"secure": subject.site.secure.model_copy(update={"peers": peers})})
    assert said(check_keys, replace(subject, site=site), "other peers than the kit was made for (4 sites") == "warning"


# the coordinator


@contextmanager
def answering(folder: Path, server: Signed | None, date: datetime | None) -> Iterator[int]:
    """A coordinator of one answer: over TLS with ``server``, else in plain text."""
    context = None
    if server is not None:
        (folder / "s.key").write_bytes(server.key_pem)
        (folder / "s.crt").write_bytes(server.pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "s.crt", folder / "s.key")
    head = "" if date is None else f"Date: {format_datetime(date, usegmt=True)}\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            try:
                plain, _ = listening.accept()
                with context.wrap_socket(plain, server_side=True) if context else plain as open_:
                    open_.recv(4096)
                    open_.sendall(f"HTTP/1.1 404 Not Found\r\n{head}\r\n".encode())
            except OSError:
                pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(timeout=5)


def at(subject: Any, address: str, now: datetime | None = None) -> Any:
    return replace(subject, kit=subject.kit.model_copy(update={"coordinator": address}), now=now or utc_now())


@pytest.fixture
def authority(kit: Any) -> Signed:
    """One whose certificate is in the kit of north."""
    made = make_authority("lab", utc_now(), 200)
    (kit.tree.site("north") / "ca.crt").write_bytes(made.pem)
    return made


@pytest.mark.parametrize(
    ("hosts", "begun", "days", "words", "level"),
    [
        (["localhost"], 0, 100, "answers by TLS, under the kit's authority", "fact"),
        (["localhost"], 0, 100, "the coordinator's certificate ends on", "fact"),
        (["localhost"], 0, 29, "in 28 days", "warning"),
        (["localhost"], -40, 30, "its certificate has expired", "fault"),
        (["localhost"], 3, 30, "is not valid yet", "fault"),
        (["elsewhere"], 0, 30, "is for another name", "fault"),
    ],
)
def test_certificates_of_the_coordinator(
    kit: Any, authority: Signed, hosts: list[str], begun: int, days: int, words: str, level: str, tmp_path: Path
) -> None:
    server = make_server(authority, hosts, utc_now() + begun * DAY - timedelta(minutes=5), days)
    with answering(tmp_path, server, utc_now()) as port:
        assert said(check_coordinator, at(kit.subject(), f"localhost:{port}"), words) == level


def test_an_address_in_digits_that_the_certificate_is_not_for_is_told(
    kit: Any, authority: Signed, tmp_path: Path
) -> None:
    with answering(tmp_path, make_server(authority, ["localhost"], utc_now(), 30), None) as port:
        assert said(check_coordinator, at(kit.subject(), f"127.0.0.1:{port}"), "is for another address") == "fault"


@pytest.mark.parametrize(("days", "level"), [(1, "warning"), (180, "warning"), (150, "fact"), (201, "fault")])
def test_the_authority_is_warned_of_thirty_days_before_its_end(
    kit: Any, authority: Signed, days: int, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmchain_fl.onprem.site_check.coordinator.look", lambda *_, **__: Seen())
    now = utc_now() + (days if level != "warning" or days > 1 else 199) * DAY
    assert said(check_coordinator, at(kit.subject(), "localhost:1", now), "the authority (ca.crt)") == level


def test_another_authority_plain_text_and_nobody_are_each_in_their_words(
    kit: Any, authority: Signed, tmp_path: Path
) -> None:
    other = make_authority("lab", utc_now())
    with answering(tmp_path, make_server(other, ["localhost"], utc_now(), 30), None) as port:
        assert said(check_coordinator, at(kit.subject(), f"localhost:{port}"), "not signed by this CA") == "fault"
    with answering(tmp_path, None, None) as port:
        assert said(check_coordinator, at(kit.subject(), f"localhost:{port}"), "it does not speak TLS") == "fault"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert said(check_coordinator, at(kit.subject(), f"localhost:{port}"), "nobody listens there") == "fault"
    assert said(check_coordinator, at(kit.subject(), "no-such-host.invalid:1"), "no-such-host.invalid:1: ") == "fault"


@pytest.mark.parametrize(("around", "told"), [("", 1), ("localhost", 0)])
def test_a_proxy_in_the_environment_is_told_unless_the_coordinator_is_excepted(
    kit: Any, around: str, told: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmchain_fl.onprem.site_check.coordinator.look", lambda *_, **__: Seen())
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid:3128")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, around)
    assert sum("names a proxy" in line for line in lines(check_coordinator, kit.subject())) == told


def test_a_coordinator_that_never_answers_is_given_up(kit: Any, authority: Signed, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        seen = look(f"localhost:{silent.getsockname()[1]}", kit.tree.site("north") / "ca.crt", seconds=0.2)
    assert seen.fault == "no answer within 0.2 s"


@pytest.mark.parametrize(
    ("offset", "level"),
    [
        *[(0, "fact"), (2, "fact"), (3, "warning"), (5, "warning"), (6, "fault")],
        *[(-30, "fact"), (-60, "warning"), (-299, "warning"), (-300, "fault")],
    ],
)
def test_the_clock_against_the_coordinators(kit: Any, offset: int, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmchain_fl.onprem.site_check.coordinator.look", lambda *_, **__: Seen(offset=offset))
    assert said(check_coordinator, kit.subject(), "this clock is") == level


def test_the_coordinators_clock_is_read_from_its_answer(kit: Any, authority: Signed, tmp_path: Path) -> None:
    server = make_server(authority, ["localhost"], utc_now(), 100)
    with answering(tmp_path, server, utc_now() - timedelta(seconds=1000)) as port:
        (line,) = [line for line in lines(check_coordinator, at(kit.subject(), f"localhost:{port}")) if "clock" in line]
    assert line.startswith("fault clock: this clock is 100")
    assert line.endswith("s ahead of the coordinator's")


# code and base


def test_the_code_and_the_base_of_the_kit(kit: Any) -> None:
    found = lines(check_software, kit.subject())
    assert [line.split()[0] for line in found] == ["fact", "fact"]
    (kit.app / "client" / "app.py").write_text("import os\n")
    assert said(check_software, kit.subject(), "are not those of the kit") == "fault"


def test_other_versions_and_bundles_are_told(kit: Any) -> None:
    subject = kit.subject()
    old = replace(subject, kit=subject.kit.model_copy(update={"version": "0.3.0", "flower": "1.40.0"}))
    assert said(check_software, old, "the kit is for 0.3.0") == "fault"
    assert said(check_software, old, "the coordinator has 1.40.0") == "warning"
    for bundles, words in (([], "approves no bundle"), (["sha256:" + "0" * 64], "does not approve the kit's bundle")):
        approved = subject.site.approved.model_copy(update={"bundles": bundles})
        site = subject.site.model_copy(update={"approved": approved})
        assert said(check_software, replace(subject, site=site), words) == "warning"


def test_a_base_of_other_content_or_not_on_this_disk_is_a_refusal(kit: Any) -> None:
    subject = kit.subject()
    other = replace(subject, kit=subject.kit.model_copy(update={"base_digest": "sha256:" + "0" * 64}))
    assert said(check_software, other, "is not the model of the kit") == "fault"
    config = read_config(kit.tree.site("north") / "scenario.toml", ['model.path="org/model"'])
    away = replace(subject, plan=replace(subject.plan, config=config))
    assert said(check_software, away, "is not on this disk") == "fault"


# ledger and plan


def with_limits(subject: Any, **limits: Any) -> Any:
    told = subject.site.limits.model_copy(update=limits)
    return replace(subject, site=subject.site.model_copy(update={"limits": told}))


def test_a_plan_that_is_paid_for_is_ok(kit: Any) -> None:
    found = lines(check_budget, kit.subject())
    assert found[0] == "fact ledger: nothing was spent yet"
    assert found[1].startswith("fact plan: its 4 rounds take this site from epsilon 0.00 to 0.")
    assert len(found) == 2


@pytest.mark.parametrize(
    ("epsilon", "level", "words"),
    [
        (8.0, "fact", "its 4 rounds"),
        (0.5, "warning", "the budget ends after about"),
        (0.01, "fault", "not even the first"),
    ],
)
def test_what_the_plan_would_spend_against_the_limit(kit: Any, epsilon: float, level: str, words: str) -> None:
    subject = kit.subject()
    config = read_config(kit.tree.site("north") / "scenario.toml", ["stage.rounds=40", 'privacy.stages="shared"'])
    subject = replace(subject, plan=replace(subject.plan, config=config))
    words = words.replace("its 4 rounds", "its 80 rounds")
    assert said(check_budget, with_limits(subject, epsilon=epsilon), words) == level


def spend(kit: Any) -> Event:
    """Fifty steps, in the ledger of north."""
    event = Event("poisson-gaussian", 0.1, 2.0, 50)
    release = Release("run/1", (Charge("notes/training", event),), "", "training", "lab", "first")
    kit.subject().site.open_ledger("person").reserve(release)
    return event


def test_what_was_spent_and_what_the_plan_spends_are_counted_together(kit: Any) -> None:
    event = spend(kit)
    spent = epsilon((event,), 1e-5)
    both = epsilon((event, Event("poisson-gaussian", 0.1, 2.0, 8)), 1e-5)
    found = lines(check_budget, kit.subject())
    assert found[0] == f"fact ledger: verified, 2 lines: epsilon {epsilon_text(spent)} spent of 8"
    assert (
        found[1]
        == f"fact plan: its 4 rounds take this site from epsilon {epsilon_text(spent)} to {epsilon_text(both)} of 8"
    )


def test_shared_noise_is_counted_by_the_peers_that_this_site_trusts(kit: Any) -> None:
    text = kit.text.replace("small.toml", "demo").replace("[limits]", "[secure]\ncounted_peers = 2\n[limits]")
    kit.provision(text)
    subject = kit.subject()
    config = read_config(kit.tree.site("north") / "scenario.toml", ["privacy.noise_multiplier=3.0"])
    subject = replace(subject, plan=replace(subject.plan, config=config))
    shares = []
    for trusted in (2, 0):
        secure = subject.site.secure.model_copy(update={"counted_peers": trusted})
        site = subject.site.model_copy(update={"secure": secure})
        planned = forecast(config)
        assert planned is not None
        (event,) = events_here(replace(subject, site=site), subject.plan, planned, 36)
        shares.append(event.noise_multiplier)
    assert shares[0] == pytest.approx(3.0, rel=0.01)
    assert shares[1] == pytest.approx(3.0 / 3**0.5, rel=0.01)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"units": ["site"]}, "the privacy unit is one person"),
        ({"delta": 1e-7}, "is above the site's"),
        ({"base_models": ["minilm"]}, "the site does not allow this base model"),
        ({"max_steps": 1}, "2 steps in a round, the site allows 1"),
        ({"max_tokens": 4}, "12 tokens, the site allows 4"),
    ],
)
def test_a_policy_that_would_refuse_the_plan_says_so_now(kit: Any, change: dict[str, Any], words: str) -> None:
    assert said(check_budget, with_limits(kit.subject(), **change), words) == "fault"


def test_a_plan_without_privacy_spends_nothing_and_is_the_policys_to_take(kit: Any) -> None:
    config = read_config(kit.tree.site("north") / "scenario.toml", ["privacy.enabled=false"])
    subject = kit.subject()
    subject = replace(subject, plan=replace(subject.plan, config=config))
    assert said(check_budget, subject, "trains with differential privacy only") == "fault"
    assert said(check_budget, with_limits(subject, require_privacy=False), "spends nothing of the budget") == "fact"


def test_a_ledger_that_cannot_be_trusted_is_a_refusal_and_no_plan_is_told(kit: Any) -> None:
    site = kit.subject().site
    site.anchor_file.write_text("it was in use")
    found = lines(check_budget, kit.subject())
    assert len(found) == 1
    assert found[0].startswith("fault ledger: ")
