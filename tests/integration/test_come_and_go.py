"""Sites that are switched off and on while a run goes on: through whole runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from client.app import make_app
from llmchain_fl.config.write import to_toml
from llmchain_fl.core.errors import RunError
from llmchain_fl.progress import Silent
from llmchain_fl.report.verdict import verdict
from llmchain_fl.run_dir import RunDir
from server.app import build
from server.privacy_book import PrivacyBook
from simulations.grid import InProcessGrid
from simulations.prepare import prepare_sites

PRIVATE = {"enabled": True, "unit": "record", "epsilon": 8.0}
STAGES = [{"name": "first", "rounds": 2}, {"name": "second", "rounds": 2}]


class Switched(InProcessGrid):
    """``off(round)``: names of the sites that are off before that round; 0 is the start."""

    def __init__(self, app: Any, sites: list[str], off: Callable[[int], set[str]]) -> None:
        super().__init__(app, sites)
        self._sites, self._off, self._looks = dict(zip(super().get_node_ids(), sites, strict=True)), off, -1

    def get_node_ids(self) -> list[int]:
        self._looks += 1
        return [node for node, name in self._sites.items() if name not in self._off(self._looks)]


def play(tiny: Any, folder: Path, off: Callable[[int], set[str]], **sections: Any) -> RunDir:
    given = {"continual": {"guards": []}, "stage": STAGES, "sites": {"held_out": 0.0, "wait_seconds": 0.3}, **sections}
    config = tiny.config(**given)
    run = RunDir.open(folder) if folder.exists() else RunDir.create(folder, to_toml(config))
    sites = {site.name: site for site in prepare_sites(config, run.path / "sites")}
    app = make_app(lambda context: sites[str(context.node_config["site-name"])])
    build(config, run, Silent()).play(Switched(app, sorted(sites), off))
    return run


def took_part(run: RunDir, number: int) -> set[str]:
    return {row["site"] for row in run.rows() if row["metric"] == "update_norm" and row["round"] == number}


@pytest.mark.thorough
def test_a_site_that_is_off_is_not_asked_pays_nothing_and_is_back_when_it_is_on(tiny: Any, tmp_path: Path) -> None:
    run = play(tiny, tmp_path / "run", lambda look: {"site-01"} if look in (2, 3) else set(), privacy=PRIVATE)
    assert [len(took_part(run, number)) for number in (1, 2, 3, 4)] == [3, 2, 2, 3]
    assert {row["round"] for row in run.rows() if row["metric"] == "away" and row["site"] == "site-01"} == {2, 3}
    assert not [row for row in run.rows() if row["metric"] == "refused"]
    spent = {name: site["epsilon"] for name, site in run.read_privacy()["sites"].items()}
    assert spent["site-01"] < spent["site-00"] == spent["site-02"]
    assert "Not connected: site-01 in 2 rounds." in verdict(run.rows(), run.read_privacy())


def test_a_site_that_joins_later_is_switched_on_later(tiny: Any, tmp_path: Path) -> None:
    stream = {"arrival": {"site-02": {"joins": 3}}}
    run = play(tiny, tmp_path / "run", lambda look: {"site-02"} if look < 3 else set(), stream=stream)
    assert [len(took_part(run, number)) for number in (1, 2, 3, 4)] == [2, 2, 3, 3]
    assert not [row for row in run.rows() if row["metric"] == "away"]


def test_a_run_goes_on_without_a_site_that_is_off_when_the_server_starts_again(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="0 of 3 sites are connected, a round needs 1"):
        play(tiny, tmp_path / "run", lambda look: {"site-00", "site-01", "site-02"} if look > 2 else set())
    run = play(tiny, tmp_path / "run", lambda look: {"site-00"})
    assert [took_part(run, number) for number in (2, 3, 4)] == [
        {"site-00", "site-01", "site-02"},
        {"site-01", "site-02"},
        {"site-01", "site-02"},
    ]
    assert json.loads(run.metrics.read_text().splitlines()[-1])["round"] == 4


def test_rounds_wait_for_the_only_site_that_can_pay_and_do_not_pass_while_it_is_off(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PrivacyBook, "affords", lambda _book, site, *_: site == "site-01")
    with pytest.raises(RunError, match="0 of 1 sites are connected, a round needs 1"):
        play(tiny, tmp_path / "run", lambda look: {"site-01"} if look > 1 else set())
    rows = RunDir.open(tmp_path / "run").rows()
    assert {row["round"] for row in rows if row["metric"] != "stopped"} == {0, 1}
    assert verdict(rows, {})[0].startswith("STOPPED after 1 of 4 rounds: 0 of 1 sites are connected")
