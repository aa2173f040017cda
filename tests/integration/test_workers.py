"""Sites in worker processes: the bits of one process, a dead worker costs nobody anything, no noise is drawn twice."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load, load_file

from client import outbox
from client.site import Site, read_site
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.config.write import to_toml
from llmchain_fl.core.base_model import load_base
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.planning.work import base_spec
from llmchain_fl.progress import Silent
from llmchain_fl.run_dir import RunDir
from simulations import simulation_grid
from simulations.run import share_outputs, simulate
from simulations.seen import Watcher
from simulations.simulation_grid import Pays, processes
from simulations.workers import Workers

PRIVATE = {
    "privacy": {"enabled": True, "noise_multiplier": 50.0},
    "train": {"steps": 1, "optimizer": "sgd", "momentum": 0.0},
    "sites": {"held_out": 0.0},
    "continual": {"guards": []},
}
SUMMED = {
    "train": {"method": "lockstep", "steps": 1},
    "secure": {"sum": True},
    "sites": {"held_out": 0.0},
    "continual": {"guards": []},
}


class StopsIn(Silent):
    """Ctrl-C in the middle of a round."""

    def __init__(self, number: int) -> None:
        self._number = number

    def round_started(self, number: int, stage_name: str, asked: int) -> None:
        self._now = number

    def site_finished(self, site: str, tokens: int, seconds: float) -> None:
        if self._now == self._number:
            raise KeyboardInterrupt


def play(config: RunConfig, folder: Path, workers: int, watching: Silent | None = None) -> RunDir:
    run = RunDir.open(folder) if folder.exists() else RunDir.create(folder, to_toml(config))
    simulate(config, run, watching or Silent(), workers=workers)
    return run


def adapter(run: RunDir) -> dict[str, np.ndarray]:
    return dict(load_file(run.adapter / "adapter_model.safetensors"))


def same(one: RunDir, other: RunDir) -> bool:
    here, there = adapter(one), adapter(other)
    return here.keys() == there.keys() and all(np.array_equal(value, there[name]) for name, value in here.items())


def told(run: RunDir) -> list[dict[str, Any]]:
    """Everything that is measured but for the time."""
    return sorted((row for row in run.rows() if row["metric"] != "seconds"), key=lambda row: json.dumps(row))


def once(folder: Path) -> bool:
    """Whether this is the first call, over all processes."""
    try:
        (folder / "once").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def whole(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The run as one process plays it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("server.app._write_pages", lambda run: None)
        return play(tiny.config(), tmp_path_factory.mktemp("whole") / "run", 1)


def test_several_workers_give_the_bits_of_one(tiny: Any, tmp_path: Path, without_pages: None, whole: RunDir) -> None:
    several = play(tiny.config(), tmp_path / "several", 2)
    assert same(whole, several)
    assert told(whole) == told(several)
    assert multiprocessing.active_children() == []


def test_workers_that_are_started_in_the_middle_of_a_round_change_no_bit(
    tiny: Any, tmp_path: Path, without_pages: None, whole: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[int] = []
    replies = Workers.replies
    monkeypatch.setattr(Workers, "replies", lambda *given: handed.append(1) or replies(*given))
    monkeypatch.setattr(simulation_grid, "WORTH", 0.0)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    run = play(tiny.config(), tmp_path / "run", 0)
    assert handed
    assert same(whole, run)
    assert told(whole) == told(run)


def test_a_secure_sum_has_the_same_bits_with_several_workers(tiny: Any, tmp_path: Path, without_pages: None) -> None:
    one, several = (play(tiny.config(**SUMMED), tmp_path / str(count), count) for count in (1, 2))
    assert same(one, several)
    assert told(one) == told(several)


def test_what_workers_have_computed_is_known_to_those_of_the_next_run(
    tiny: Any, tmp_path: Path, without_pages: None
) -> None:
    config = tiny.config(adapter={"last_layers": 1})
    share_outputs(config)
    shared, counts, runs = load_base(base_spec(config)).remembered, [], []
    try:
        for name in ("first", "second"):
            runs.append(play(config, tmp_path / name, 2))
            counts.append(len(shared))
    finally:
        load_base.cache_clear()
    scored = len(set(tiny.test.read_text().splitlines()))
    assert counts[0] == counts[1] > scored
    assert same(*runs)


def test_after_ctrl_c_no_worker_is_left_and_the_run_goes_on_to_the_same_bits(
    tiny: Any, tmp_path: Path, without_pages: None, whole: RunDir
) -> None:
    config = tiny.config()
    with pytest.raises(KeyboardInterrupt):
        play(config, tmp_path / "stopped", 2, StopsIn(2))
    assert multiprocessing.active_children() == []
    assert same(play(config, tmp_path / "stopped", 2), whole)


def test_a_site_whose_worker_dies_is_asked_again_in_a_new_one(
    tiny: Any,
    tmp_path: Path,
    without_pages: None,
    whole: RunDir,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    release = outbox.release

    def dying(*given: Any) -> Any:
        if once(tmp_path):
            dies()
        return release(*given)

    monkeypatch.setattr(outbox, "release", dying)
    with caplog.at_level(logging.WARNING, "llmchain_fl"):
        hurt = play(tiny.config(), tmp_path / "hurt", 2)
    assert same(whole, hurt)
    assert "asked again" in caplog.text


def test_a_site_that_kills_its_worker_each_time_gives_no_answer_and_the_others_do(
    tiny: Any, tmp_path: Path, without_pages: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(_watcher: Watcher, site: Site, *_seen: Any) -> None:
        if site.name == "site-01":
            dies()

    monkeypatch.setattr(Watcher, "__call__", dying)
    run = play(tiny.config(sites={"held_out": 0.0}), tmp_path / "run", 2)
    refused = {(row["round"], row["site"], row["reason"]) for row in run.rows() if row["metric"] == "refused"}
    assert refused == {(1, "site-01", "wire"), (2, "site-01", "wire")}


@pytest.mark.parametrize("moment", ["paid", "sealed"])
def test_a_private_round_whose_worker_dies_is_paid_once_and_answered_once(
    tiny: Any, tmp_path: Path, without_pages: None, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    config, release = tiny.config(**PRIVATE), outbox.release
    left: list[bytes] = []

    def dying(ledger: Any, task: Any, plan: Any, leaving: Any) -> Any:
        if moment == "paid" and once(tmp_path):
            dies()
        content = release(ledger, task, plan, leaving)
        if moment == "sealed" and once(tmp_path):
            (tmp_path / "sealed").write_bytes(outbox.payload(leaving))
            dies()
        return content

    monkeypatch.setattr(outbox, "release", dying)
    run = play(config, tmp_path / "run", 2)
    for folder in sorted(run.sites.glob("site-*")):
        lines = [json.loads(line) for line in next(folder.glob("state/*/events.jsonl")).read_text().splitlines()]
        kinds = [line["type"] for line in lines]
        assert (kinds.count("reserve"), kinds.count("seal")) == (2, 2)
        left += [file.read_bytes() for file in folder.glob("state/*/sealed/*.bin")]
    if moment == "sealed":
        assert (tmp_path / "sealed").read_bytes() in left
    spent = {read_site(folder / "site.toml").open_ledger("person").spent().epsilon for folder in run.sites.glob("s*-*")}
    assert len(spent) == 1


def test_two_workers_draw_two_noises(tiny: Any, tmp_path: Path, without_pages: None) -> None:
    """What a fork copies would be the generator of one noise, and the difference of two updates free of it."""
    run = play(tiny.config(**PRIVATE), tmp_path / "run", 3)
    sent = [
        np.concatenate([value.ravel() for _, value in sorted(load(file.read_bytes()).items())])
        for file in run.sites.glob("site-*/state/*/sealed/*.bin")
    ]
    close = np.corrcoef(sent) - np.eye(len(sent))
    assert len(sent) == 6
    assert np.abs(close).max() < 0.5


def test_when_workers_pay_is_measured() -> None:
    slow, fast, few = Pays(2, 1000), Pays(2, 1000), Pays(2, 4)
    assert not slow.now
    for seconds in (9.0, 0.1):
        slow.note(seconds)
        fast.note(seconds / 100)
        few.note(seconds)
    assert slow.now  # 998 x 0.1 s, half of it saved
    assert not fast.now
    assert not few.now


def test_there_are_as_many_processes_as_cores_and_sites_and_one_for_a_trainer_of_ones_own(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.config()
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert processes(config, 0, own_trainer=False) == 3
    assert processes(config, 2, own_trainer=False) == 2
    assert processes(config, 0, own_trainer=True) == 1
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert processes(config, 0, own_trainer=False) == 1


def test_a_gpu_has_one_process(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulations.simulation_grid.choose_device", lambda _name: torch.device("cuda"))
    assert processes(tiny.config(), 0, own_trainer=False) == 1
    with pytest.raises(ConfigError, match="GPU"):
        processes(tiny.config(), 2, own_trainer=False)
