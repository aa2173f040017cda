"""`llmchain-fl privacy`: what a plan costs, what a ledger says, whether the gate holds, each in words and in JSON."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from client.site import read_site
from llmchain_fl.cli import privacy, privacy_audit, privacy_ledger, privacy_membership, privacy_plan
from llmchain_fl.cli.privacy_plot import rounds_drawn
from llmchain_fl.core.errors import ConfigError, PrivacyError, RunError
from llmchain_fl.core.privacy.accounting import epsilon
from llmchain_fl.core.privacy.events import KINDS, UNSAMPLED, Event
from llmchain_fl.core.privacy.release import Charge, Release
from llmchain_fl.planning.forecast import Forecast
from llmchain_fl.privacy.audit.finding import Finding
from llmchain_fl.run_dir import RunDir

SVG = "{http://www.w3.org/2000/svg}"
TRAINING = Event("poisson-gaussian", 0.12, 1.5, 4)
SCORES = Event("gaussian", 1.0, 4.0, 2)


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


def said(*arguments: object) -> str:
    result = CliRunner().invoke(privacy.app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def exit_code(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    from llmchain_fl.cli.main import main

    monkeypatch.setattr(sys, "argv", ["llmchain-fl", "privacy", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


# -- plan ---------------------------------------------------------------------------------------------------------


TERMS = "delta 1e-5, per person, PLD accountant, noise added at each site"


def test_a_plan_says_what_it_protects_and_what_every_milestone_costs() -> None:
    text = said("plan", "demo-lora")
    for part in (
        "person: adding or removing one person with all of that person's records",
        "calibrated to epsilon 8",
        "end of payments",
        TERMS,
        "replace-one",
        "1,000",
        "nothing is spent",
    ):
        assert part in text
    assert "Warnings" not in text


def test_the_plan_as_json_is_the_forecast_in_figures() -> None:
    told = json.loads(said("plan", "demo-lora", "--set", "privacy.epsilon=3", "--persons", "250", "--json"))
    last = told["epsilon"][-1]
    event = Event("poisson-gaussian", told["sampling_rate"], told["noise_multiplier"], 4 * last["counted"])
    assert last["round"] == 9
    assert last["pld"] == pytest.approx(epsilon([event], told["delta"], "pld"))
    assert last["rdp"] == pytest.approx(epsilon([event], told["delta"], "rdp"))
    assert 2.99 <= last["pld"] <= 3.0 < last["rdp"] < told["replace_one"] + 1
    assert told["noise_multiplier_for"]["3"] == pytest.approx(told["noise_multiplier"])
    assert told["expected_units_per_step"]["250"] == pytest.approx(250 * told["sampling_rate"])
    assert told["scores"]["count"] == 6


def test_a_plan_with_records_as_units_says_what_is_left_for_somebody_with_several() -> None:
    text = said("plan", "demo-lora", "--set", "privacy.unit=record", "--persons", "300", "--set", "privacy.delta=0.004")
    assert "for somebody with 8 records" in text
    assert "! The unit is one record" in text
    assert "! Delta is not below 1 / 300" in text


def test_a_plan_with_sites_as_units_counts_sites_and_names_who_is_trusted() -> None:
    changes = ("privacy.unit=site", "sites.held_out=0", "sites.minimum=4")
    text = said("plan", "demo-lora", *(word for change in changes for word in ("--set", change)))
    assert "sites in a round" in text
    assert "it sees every update without it" in text
    assert "persons at a site" not in text


def test_a_scenario_without_privacy_says_so_and_how_to_have_it() -> None:
    text = said("plan", "banking77-lora")
    assert "without differential privacy" in text
    assert "--set privacy.enabled=true --set privacy.epsilon=8" in text
    assert json.loads(said("plan", "banking77-lora", "--json")) == {"private": False}


def test_an_epsilon_without_a_bound_is_null_in_json_and_a_warning_in_words() -> None:
    change = ("--set", "privacy.epsilon=0", "--set", "privacy.noise_multiplier=0.001", "--set", "sites.held_out=0")
    told = json.loads(said("plan", "demo-lora", *change, "--json"))
    assert told["epsilon"][-1]["pld"] is None
    assert told["replace_one"] is None
    assert "no finite bound" in said("plan", "demo-lora", *change)


@pytest.mark.parametrize(("ending", "magic"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_the_plot_is_written_in_the_kind_that_its_name_asks_for(tmp_path: Path, ending: str, magic: bytes) -> None:
    file = tmp_path / f"plan.{ending}"
    assert str(file) in said("plan", "demo-lora", "--plot", file)
    assert file.read_bytes().startswith(magic)


def test_the_plot_names_both_accountants_every_stage_and_the_budget(tmp_path: Path) -> None:
    from xml.etree import ElementTree

    file = tmp_path / "plan.svg"
    told = json.loads(CliRunner().invoke(privacy.app, ["plan", "demo-lora", "--plot", str(file), "--json"]).stdout)
    words = " | ".join(element.text or "" for element in ElementTree.parse(file).iter(f"{SVG}text"))
    for part in ("PLD", "RDP", "1 cards", "2 payments", "3 accounts", "budget 8, by PLD", "delta 1e-5"):
        assert part in words
    assert told["private"] is True


def test_a_plot_of_an_unknown_kind_or_in_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.svg"):
        said("plan", "demo-lora", "--plot", tmp_path / "plan.gif")
    with pytest.raises(ConfigError, match="cannot be written"):
        said("plan", "demo-lora", "--plot", tmp_path / "nowhere" / "plan.svg")


def test_a_long_run_is_drawn_with_few_points_but_with_every_end_of_a_stage() -> None:
    stages = (("a", 333), ("b", 1), ("c", 700))
    plan = Forecast("person", TRAINING, 1.0, 1.0, 1e-5, "pld", stages, True, None)
    drawn = rounds_drawn(plan)
    assert {0, 1, 333, 334, 335, 1034} <= set(drawn)
    assert len(drawn) < 50


def test_signal_words_follow_the_ratio() -> None:
    assert [privacy_plan.strength(pull) for pull in (0.5, 1, 99, 100, float("inf"))] == [
        "drowned",
        "hard to see",
        "visible",
        "clear",
        "clear",
    ]


# -- ledger -------------------------------------------------------------------------------------------------------


def write_site(folder: Path, name: str = "north", limit: float = 8.0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "site.toml"
    file.write_text(f'name = "{name}"\n[data]\nname = "notes"\ntrain = "x"\n[limits]\nepsilon = {limit}\n')
    return file


def release(key: str, group: str, event: Event, purpose: str = "training") -> Release:
    return Release(key, (Charge(group, event),), "d" * 64, purpose, "banks", "cards")


def spend(file: Path) -> Any:
    """One round acknowledged, one sealed, one reserved, and scores reserved."""
    book = read_site(file).open_ledger("person")
    for number in (1, 2, 3):
        book.reserve(release(f"abcdef0123/{number}", "notes/training", TRAINING))
        if number < 3:
            book.seal(f"abcdef0123/{number}", bytes([number]))
        if number == 1:
            book.acknowledge(book.receipt())
    book.reserve(release("abcdef0123/3/scores", "notes/held-out", SCORES, "scores"))
    return book


def test_a_rate_stands_where_units_are_sampled_and_nowhere_else() -> None:
    for kind in KINDS:
        shown = privacy_ledger.mechanism(Event(kind, 1.0 if kind in UNSAMPLED else 0.2, 2.5, 3))
        assert shown == ("Gaussian z=2.5 x3" if kind in UNSAMPLED else "Gaussian z=2.5 q=0.2 x3")


def test_every_release_is_one_line_and_the_total_is_the_largest_of_what_people_were_in(tmp_path: Path) -> None:
    file = write_site(tmp_path)
    spend(file)
    lines = said("ledger", file).splitlines()
    releases = [line for line in lines if "banks" in line]
    assert [line.split()[-1] for line in releases] == ["acknowledged", "sealed", "reserved", "reserved"]
    assert "abcdef01  2" in releases[1]
    assert "Gaussian z=1.5 q=0.12 x4" in releases[0]
    assert "notes/held-out  Gaussian z=4 x2" in releases[3]
    total = epsilon([Event("poisson-gaussian", 0.12, 1.5, 12)], 1e-5)
    shown = f"epsilon {-(-total // 0.01) / 100:.2f} of 8.00"
    assert any(shown in line and TERMS in line for line in lines)


def test_the_ledger_as_json_holds_the_head_and_what_is_left(tmp_path: Path) -> None:
    file = write_site(tmp_path)
    book = spend(file)
    (told,) = json.loads(said("ledger", tmp_path, "--json"))
    assert told["epsilon"] == pytest.approx(book.spent().epsilon)
    assert told["epsilon_left"] == pytest.approx(8.0 - book.spent().epsilon)
    assert told["profiles"]["notes/held-out"] == pytest.approx(epsilon([SCORES], 1e-5))
    assert told["epsilon"] == max(told["profiles"].values())
    assert told["head"] == json.loads(read_site(file).anchor_file.read_bytes())["head"]
    assert [entry["state"] for entry in told["releases"]] == ["acknowledged", "sealed", "reserved", "reserved"]


def test_people_of_several_groups_stand_there_with_what_they_pay_together(tmp_path: Path) -> None:
    file = write_site(tmp_path)
    book = read_site(file).open_ledger("person")
    for number, group in enumerate(("notes/training", "visits/training"), start=1):
        book.reserve(release(f"r/{number}", group, TRAINING), [(group, ["ann"])])
    both = epsilon([TRAINING, TRAINING], 1e-5)
    shown = " ".join(said("ledger", file).split())
    assert f"notes/training + visits/training epsilon {-(-both // 0.01) / 100:.2f}" in shown
    (told,) = json.loads(said("ledger", file, "--json"))
    assert told["profiles"]["notes/training + visits/training"] == pytest.approx(both) == told["epsilon"]


def test_names_of_an_old_line_cannot_move_the_cursor_or_forge_a_line(tmp_path: Path) -> None:
    """Releases refuse such names; what a line holds all the same, or a file is called, comes out escaped."""
    file = write_site(tmp_path)
    spend(file)
    site = read_site(file)
    reading = privacy_ledger.read(site)
    assert reading is not None
    evil = "r\x1b[2J\n[red]epsilon 0.00\u202e"
    line = reading.lines[0]
    odd = object.__new__(Release)
    for name, value in {**vars(line.release), "federation": evil, "stage": evil, "key": f"{evil}/1"}.items():
        object.__setattr__(odd, name, value)
    forged = replace(
        reading,
        lines=(replace(line, release=odd, time=evil),),
        spent=replace(reading.spent, groups=((evil, (TRAINING,)),)),
        renewed=(evil,),
    )
    console = Console(width=400, record=True, file=io.StringIO())
    privacy_ledger.show(console, site, forged)
    text = console.export_text()
    assert not {"\x1b", "\u202e"} & set(text)
    assert text.count("r\\x1b[2J\\x0a[red]epsilon 0.00\\u202e") >= 5
    assert all(sign.isprintable() or sign == "\n" for sign in text)


def test_reading_adds_nothing_to_the_ledger_and_makes_none(tmp_path: Path) -> None:
    file = write_site(tmp_path)
    assert "no ledger yet" in said("ledger", file)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["site.toml"]
    spend(file)
    log = read_site(file).ledger_folder / "events.jsonl"
    before = log.read_bytes()
    said("ledger", file)
    assert log.read_bytes() == before


def test_a_run_shows_all_of_its_sites(tmp_path: Path) -> None:
    spend(write_site(tmp_path / "sites" / "site-00", "site-00"))
    write_site(tmp_path / "sites" / "site-01", "site-01")
    text = said("ledger", tmp_path)
    assert "site-00: ledger verified" in text
    assert "site-01: no ledger yet" in text


def cut(folder: Path, anchor: Path) -> None:
    log = folder / "events.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))


def edit(folder: Path, anchor: Path) -> None:
    log = folder / "events.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"steps":4', b'"steps":1', 1))


def lose_folder(folder: Path, anchor: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def lose_anchor(folder: Path, anchor: Path) -> None:
    anchor.unlink()


@pytest.mark.parametrize(
    ("harm", "word"),
    [(cut, "rolled back"), (edit, "cannot be trusted"), (lose_folder, "gone"), (lose_anchor, "anchor")],
)
def test_a_ledger_that_cannot_be_trusted_is_one_error_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], harm: Any, word: str
) -> None:
    file = write_site(tmp_path)
    spend(file)
    site = read_site(file)
    harm(site.ledger_folder, site.anchor_file)
    assert exit_code(monkeypatch, "ledger", file) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: site north: ")
    assert word in printed.err


def test_a_new_anchor_is_made_on_demand_and_told_for_ever(tmp_path: Path) -> None:
    file = write_site(tmp_path)
    spend(file)
    read_site(file).anchor_file.unlink()
    assert "made a new anchor at" in said("ledger", file, "--renew-anchor")
    assert "made a new anchor at" in said("ledger", file)


def test_an_anchor_is_renewed_for_one_site_that_has_a_ledger_only(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for name in ("a", "b"):
        spend(write_site(run / "sites" / name, name))
    with pytest.raises(ConfigError, match="one site"):
        said("ledger", run, "--renew-anchor")
    with pytest.raises(PrivacyError, match="no ledger"):
        said("ledger", write_site(tmp_path / "fresh"), "--renew-anchor")


def test_a_folder_that_is_neither_site_nor_run_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no site file, and no run directory"):
        said("ledger", tmp_path)


def test_a_ledger_of_an_earlier_version_is_refused_with_its_remedy(tmp_path: Path) -> None:
    file = write_site(tmp_path)
    folder = read_site(file).ledger_folder
    folder.mkdir(parents=True)
    (folder / "events.jsonl").write_text(
        '{"type": "reserve", "key": "a/1", "unit": "record", "plan": "", "event": {}}\n'
    )
    with pytest.raises(PrivacyError, match="the ledger of one data set, as earlier versions kept it"):
        said("ledger", file)


# -- audit --------------------------------------------------------------------------------------------------------

GOOD = Finding("noise size", True, 1.001, (0.99, 1.01), "The noise is 1.001 times as large as promised.")
BAD = Finding("noise re-use", False, 1.0, (0.0, 0.18), "Two noise vectors are the same.")
OPEN = Finding("canaries", True, -0.2, (float("-inf"), 0.0), "Nothing contradicts the claim.")


def gate_says(monkeypatch: pytest.MonkeyPatch, *findings: Finding) -> list[str]:
    asked: list[str] = []

    def run_gate(effort: str) -> list[Finding]:
        asked.append(effort)
        return list(findings)

    monkeypatch.setattr(privacy_audit, "app_module", lambda name: SimpleNamespace(run_gate=run_gate))
    return asked


def test_findings_are_shown_with_their_bounds_and_their_words(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = gate_says(monkeypatch, GOOD, OPEN)
    text = said("audit")
    assert asked == ["quick"]
    assert "pass  noise size  1.001 (allowed 0.99 to 1.01)" in text
    assert GOOD.words in text
    assert "2 of 2 checks passed." in text


def test_a_failed_check_is_named_and_ends_with_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gate_says(monkeypatch, GOOD, BAD)
    assert exit_code(monkeypatch, "audit", "--effort", "full") == 2
    printed = capsys.readouterr()
    assert "FAIL  noise re-use" in printed.out
    assert "1 of 2 checks failed: noise re-use" in printed.err


def test_the_audit_as_json_is_json_also_where_a_bound_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    gate_says(monkeypatch, OPEN)
    told = json.loads(said("audit", "--json", "--effort", "full"))
    assert told["effort"] == "full"
    assert told["findings"][0]["allowed"] == [None, 0.0]


def test_another_effort_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    gate_says(monkeypatch, GOOD)
    with pytest.raises(ConfigError, match="quick, full"):
        said("audit", "--effort", "none")


class Texts(list[str]):
    """As much of ``Examples`` as is asked for."""

    def length(self, i: int) -> int:
        return len(self[i])

    def by_record(self, values: Any) -> Any:
        return values


class LengthTask:
    """A record's loss is the length of its text before training, and half of it for short texts after."""

    def __init__(self) -> None:
        self.resident = self
        self.theta = torch.ones(1)

    def reset(self) -> None:
        self.theta.zero_()

    def encode(self, rows: list[dict[str, str]]) -> Any:
        return Texts(row["text"] for row in rows)

    def forward(self, examples: Any, index: list[int]) -> Any:
        lengths = torch.tensor([examples.length(i) for i in index], dtype=torch.float32)
        return torch.where((lengths < 40) & (self.theta > 0), lengths / 2, lengths)

    def losses(self, output: Any) -> Any:
        return output


def write_people(folder: Path, people: dict[str, list[int]], file: str) -> None:
    rows = [{"text": "x" * length, "person": who} for who, lengths in people.items() for length in lengths]
    (folder / file).write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """A private run of one stage: 30 persons with short texts were trained on, 150 with long ones were held out."""
    text = '[task]\nlabels = ["a"]\n[data]\ntrain = "x"\n[[stage]]\nname = "cards"\n'
    made = RunDir.create(tmp_path / "run", text)
    row = {"round": 0, "stage": -1, "scope": "global", "site": None, "task": "cards", "metric": "accuracy"}
    made.append_rows([{**row, "value": 0.1}])
    claim(made, 3.0)
    write_site(made.sites / "site-00", "site-00")
    write_people(made.sites / "site-00", {f"in {n}": [10, 20] for n in range(30)}, "cards.jsonl")
    write_people(made.sites / "site-00", {f"out {n}": [50, 60] for n in range(150)}, "cards.held_out.jsonl")
    monkeypatch.setattr("llmchain_fl.cli.trained.open_trained", lambda path: (None, LengthTask()))
    return made


def claim(run: RunDir, epsilon: float, unit: str = "person") -> None:
    terms = {"private": True, "delta": 1e-5, "unit": unit, "accountant": "pld"}
    run.write_privacy({**terms, "sites": {"site-00": {"epsilon": epsilon}, "site-01": {"epsilon": epsilon / 2}}})


def test_the_attack_compares_persons_trained_on_with_persons_held_out(run: RunDir) -> None:
    outcome = privacy_membership.attack(run.path).outcome
    assert (outcome.unit, outcome.members, outcome.others) == ("person", 30, 150)
    assert (outcome.auc, outcome.found) == (1.0, 1.0)


def test_an_attack_that_finds_more_than_epsilon_allows_is_exit_code_2(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gate_says(monkeypatch, GOOD)
    claim(run, 0.5)
    assert exit_code(monkeypatch, "audit", "--run", run.path) == 2
    printed = capsys.readouterr()
    assert "30 persons trained on against 150 persons the sites held out" in printed.out
    assert "AUC 1.000 +- 0.000: as a whole, members rank higher than chance explains." in printed.out
    assert f"Claim: epsilon 0.50 ({TERMS}) bounds every attack" in printed.out
    assert "found more than the run's epsilon allows" in printed.err


def test_the_attack_as_json_stands_beside_the_findings(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    gate_says(monkeypatch, GOOD)
    claim(run, 8.0)
    told = json.loads(said("audit", "--run", run.path, "--json"))
    assert [found["name"] for found in told["findings"]] == ["noise size"]
    assert (told["membership"]["epsilon"], told["membership"]["broken"], told["membership"]["ceiling"]) == (
        8.0,
        False,
        pytest.approx(1 - np.exp(-8.0) * 0.98999),
    )


@pytest.mark.parametrize(
    ("unit", "word"), [("", "the run had no differential privacy"), ("site", "bounds nothing for one person")]
)
def test_without_a_claim_for_persons_nothing_can_be_broken(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, unit: str, word: str
) -> None:
    gate_says(monkeypatch, GOOD)
    if unit:
        claim(run, 0.5, unit)
    else:
        run.write_privacy({"private": False, "sites": {}})
    assert word in said("audit", "--run", run.path)


def test_public_texts_may_differ_by_themselves_and_break_no_claim(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    claim(run, 0.5)
    (run.sites / "site-00" / "cards.held_out.jsonl").unlink()
    public = [({"text": "x" * 70}, "")] * 150
    monkeypatch.setattr(privacy_membership, "_public", lambda config: public)
    tried = privacy_membership.attack(run.path)
    assert tried.outcome.broken
    assert not tried.broken
    assert "other texts" in "\n".join(privacy_membership.attack_lines(tried))


def test_a_run_with_nobody_to_compare_with_is_refused_before_any_check(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = gate_says(monkeypatch, GOOD)
    (run.sites / "site-00" / "cards.held_out.jsonl").unlink()
    with pytest.raises(RunError, match="nobody to compare with"):
        said("audit", "--run", run.path)
    (run.sites / "site-00" / "site.toml").unlink()
    with pytest.raises(RunError, match="no sites on this machine"):
        said("audit", "--run", run.path)
    assert asked == []


def test_of_many_records_a_fixed_draw_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privacy_membership, "MOST", 3)
    many: list[Any] = [({"text": str(n)}, "") for n in range(10)]
    drawn = privacy_membership._at_most(many)
    assert drawn == privacy_membership._at_most(many)
    assert len(drawn) == 3
    assert all(record in many for record in drawn)


@pytest.mark.thorough
def test_the_real_gate_passes_on_this_installation() -> None:
    assert "FAIL" not in said("audit")


def test_the_gate_is_the_one_that_the_client_ships() -> None:
    assert privacy_audit.gate().__module__ == "simulations.audit.gate"
    assert privacy_ledger.app_module("client.site").read_site is read_site
