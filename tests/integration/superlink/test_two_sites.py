"""The same app on a real SuperLink with real SuperNodes, through ``flwr run``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.adapter.files import read_adapter
from llmchain_fl.run_dir import RunDir

pytestmark = [pytest.mark.slow, pytest.mark.flower, pytest.mark.timeout(1800)]
Private = Callable[[Path], Path]


def test_two_sites_learn_together_over_a_superlink_and_each_keeps_its_own_ledger(
    lab: Any, private: Private, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    number, said = lab.submit(scenario=str(private(tmp_path / "s.toml")), out=str(out), set="train.steps=2 seed=4")
    assert lab.entry(number)["status"] == "finished:completed", said
    assert f"run directory: {out}" in said
    assert "round 2/2 second: 2/2 sites" in said
    run = RunDir.open(out)
    assert {row["round"] for row in run.rows()} == {0, 1, 2}
    _, arrays = read_adapter(run.adapter)
    assert any(value.any() for name, value in arrays.items() if name.endswith("lora_B"))
    assert run.report.is_file()
    assert list(run.sites.iterdir()) == []
    spent = run.read_privacy()["sites"]
    for name in ("north", "south"):
        known = lab.ledger(name).spent()
        assert lab.steps(name) == 4
        assert spent[name]["epsilon"] == pytest.approx(known.epsilon)
        assert spent[name]["epsilon"] > 0
        assert list((lab.folder / name / "state" / name / "sealed").iterdir())


def test_a_site_whose_budget_is_used_up_says_no_and_the_other_goes_on(
    lab: Any, private: Private, tmp_path: Path
) -> None:
    lab.write_site("north", epsilon=0.5)
    before = {name: lab.steps(name) for name in ("north", "south")}
    out = tmp_path / "run"
    try:
        number, said = lab.submit(scenario=str(private(tmp_path / "s.toml")), out=str(out), set="stage.rounds=1")
    finally:
        lab.write_site("north", epsilon=50.0)
    assert lab.entry(number)["status"] == "finished:completed", said
    assert "1/2 sites" in said
    refused = [(row["site"], row["reason"]) for row in RunDir.open(out).rows() if row["metric"] == "refused"]
    assert set(refused) == {("north", "budget")}
    assert lab.steps("north") == before["north"]
    assert lab.steps("south") == before["south"] + 6
    assert "the site's limit is 0.5" in (lab.folder / "north.log").read_text()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"scenario": "demmo"}, "there is no scenario 'demmo'; did you mean demo?"),
        ({"set": "train.lrr=1"}, "train.lrr is not a setting; did you mean train.lr?"),
        ({"set": "title='half"}, "cannot be read: No closing quotation"),
    ],
)
def test_settings_that_cannot_run_end_in_a_failed_run_that_says_why(
    lab: Any, settings: dict[str, str], text: str
) -> None:
    number, said = lab.submit(**settings)
    entry = lab.entry(number)
    assert entry["status"] == "finished:failed"
    assert text in said
    assert text in entry["status-details"]
