"""The same app on a real SuperLink with real SuperNodes, through ``flwr run``."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from client.site import read_site
from llmchain_fl.adapter.files import read_adapter
from llmchain_fl.privacy.ledger import FileLedger
from llmchain_fl.run_dir import RunDir

pytestmark = [pytest.mark.slow, pytest.mark.flower, pytest.mark.timeout(240)]
DELTA = 1e-4
SITE = """
name = "{name}"
state = "state"

[data]
train = "{{stage}}.jsonl"

[limits]
require_privacy = true
epsilon = {epsilon}
delta = {delta}
base_models = ["{model}"]
"""


class Lab:
    """A SuperLink and two SuperNodes on this machine, each site with a folder of its own."""

    def __init__(self, folder: Path, environment: dict[str, str], app: Path, free_port: Callable[[], int]) -> None:
        self.folder, self._environment, self._app = folder, environment, app
        self._free_port, self._model = free_port, Path()
        self._started: list[subprocess.Popen[bytes]] = []
        self._port = free_port()

    def start(self, tiny: Any) -> None:
        """Bring everything up; returns when the SuperLink answers."""
        self._model = tiny.model
        Path(self._environment["FLWR_HOME"]).mkdir()
        address = f'address = "127.0.0.1:{self._port}"\ninsecure = true\n'
        (Path(self._environment["FLWR_HOME"]) / "config.toml").write_text(f"[superlink.lab]\n{address}")
        link = ("--insecure", "--host", "127.0.0.1", "--disable-runtime-dependency-installation")
        self._spawn("superlink", "flower-superlink", *link, "--port", str(self._port))
        self._await_superlink()
        for name in ("north", "south"):
            self.connect(name, tiny)

    def connect(self, name: str, tiny: Any) -> subprocess.Popen[bytes]:
        """One more data holder, and its SuperNode."""
        self.write_site(name, epsilon=50.0)
        for stage in ("first", "second"):
            shutil.copy(tiny.train, self.folder / name / f"{stage}.jsonl")
        node = ("--insecure", "--superlink", f"127.0.0.1:{self._port}", "--host", "127.0.0.1")
        site = ("--port", str(self._free_port()), "--node-config", f'site="{self.folder / name / "site.toml"}"')
        return self._spawn(name, "flower-supernode", *node, *site)

    def write_site(self, name: str, epsilon: float) -> None:
        """The site file of one data holder."""
        (self.folder / name).mkdir(exist_ok=True)
        text = SITE.format(name=name, epsilon=epsilon, delta=DELTA, model=self._model)
        (self.folder / name / "site.toml").write_text(text)

    def ledger(self, name: str) -> FileLedger:
        """The ledger that a site keeps on its own disk."""
        return read_site(self.folder / name / "site.toml").open_ledger("person")

    def steps(self, name: str) -> int:
        """Private steps that a site has paid for; every round of these runs has two."""
        return sum(event.steps for event in self.ledger(name).spent().events)

    def flwr(self, *arguments: str) -> str:
        """Run ``flwr``; its output, both streams."""
        done = subprocess.run(
            ["flwr", *arguments], env=self._environment, cwd=self.folder, timeout=200,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True,
        )  # fmt: skip
        return done.stdout

    def submit(self, *, stream: bool = True, resume: bool = False, **settings: str) -> tuple[str, str]:
        """``flwr run``: the number of the run, and its log if it is streamed."""
        config = " ".join(f'{key}="{value}"' for key, value in settings.items()) + (" resume=true" if resume else "")
        options = ["--stream"] if stream else []
        said = self.flwr("run", str(self._app), "lab", *options, "--run-config", config)
        return said.partition("Successfully started run ")[2].split()[0], said

    def entry(self, number: str) -> dict[str, Any]:
        """What ``flwr list`` says of a run; the exit code of ``flwr run`` says nothing."""
        listed: list[dict[str, Any]] = json.loads(self.flwr("list", "lab", "--run-id", number, "--format", "json"))[
            "runs"
        ]
        return listed[0]

    def stop(self) -> None:
        """End everything that was started, gently first."""
        for process in self._started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self._started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)

    def _spawn(self, name: str, command: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("wb") as log:
            self._started.append(
                subprocess.Popen(
                    [command, *arguments], env=self._environment, cwd=self.folder, stdout=log,
                    stderr=subprocess.STDOUT, start_new_session=True,
                )
            )  # fmt: skip
        return self._started[-1]

    def _await_superlink(self) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end and self._started[0].poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1):
                return
            time.sleep(0.2)
        pytest.fail((self.folder / "superlink.log").read_text())


@pytest.fixture(scope="module")
def lab(
    tiny: Any,
    app: Path,
    only_the_bundle: Callable[[], dict[str, str]],
    free_port: Callable[[], int],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Lab]:
    """Up for all tests of this file."""
    made = Lab(tmp_path_factory.mktemp("lab"), only_the_bundle(), app, free_port)
    try:
        made.start(tiny)
        yield made
    finally:
        made.stop()


def private(tiny: Any, path: Path) -> Path:
    """A scenario for two sites with differential privacy; ``data.train`` is a word: the records are at the sites."""
    privacy = {"enabled": True, "noise_multiplier": 1.0, "delta": DELTA}
    sites = {"count": 2, "held_out": 0.0}
    return Path(tiny.scenario(path, sites=sites, privacy=privacy, data={"train": "at-the-sites"}))


def test_two_sites_learn_together_over_a_superlink_and_each_keeps_its_own_ledger(
    lab: Lab, tiny: Any, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    number, said = lab.submit(
        scenario=str(private(tiny, tmp_path / "s.toml")), out=str(out), set="train.steps=2 seed=4"
    )
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


def test_a_site_whose_budget_is_used_up_says_no_and_the_other_goes_on(lab: Lab, tiny: Any, tmp_path: Path) -> None:
    lab.write_site("north", epsilon=0.5)
    before = {name: lab.steps(name) for name in ("north", "south")}
    out = tmp_path / "run"
    try:
        number, said = lab.submit(scenario=str(private(tiny, tmp_path / "s.toml")), out=str(out), set="stage.rounds=1")
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
    lab: Lab, settings: dict[str, str], text: str
) -> None:
    number, said = lab.submit(**settings)
    entry = lab.entry(number)
    assert entry["status"] == "finished:failed"
    assert text in said
    assert text in entry["status-details"]


def test_a_stopped_run_goes_on_where_it_was_and_no_site_pays_twice(lab: Lab, tiny: Any, tmp_path: Path) -> None:
    before = {name: lab.steps(name) for name in ("north", "south")}
    out = tmp_path / "run"
    scenario = private(tiny, tmp_path / "s.toml")
    number, _ = lab.submit(stream=False, scenario=str(scenario), out=str(out), set="stage.rounds=2 stage.0.rounds=1")
    end = time.monotonic() + 120
    while time.monotonic() < end and not list(out.glob("state/round-000001.*")):
        time.sleep(0.2)
    lab.flwr("stop", number, "lab")
    assert lab.entry(number)["status"] == "finished:stopped"
    assert max(row["round"] for row in RunDir.open(out).rows()) == 1
    number, said = lab.submit(out=str(out), resume=True)
    assert lab.entry(number)["status"] == "finished:completed", said
    assert "round 3/3 second: 2/2 sites" in said
    assert {row["round"] for row in RunDir.open(out).rows()} == {0, 1, 2, 3}
    assert {name: lab.steps(name) - before[name] for name in before} == {"north": 9, "south": 9}


def test_a_site_joins_a_run_under_way_and_is_taken_back_after_a_restart(lab: Lab, tiny: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = "sites.count=3 stage.rounds=20 stream.arrival.west.joins=2"
    number, _ = lab.submit(stream=False, scenario=str(private(tiny, tmp_path / "s.toml")), out=str(out), set=settings)

    def took_part(after: int) -> int:
        """The first round after ``after`` in which the new site took part."""
        end = time.monotonic() + 100
        while time.monotonic() < end:
            rows = RunDir.open(out).rows() if (out / "metrics.jsonl").exists() else []
            rounds = [row["round"] for row in rows if row["metric"] == "update_norm" and row["site"] == "west"]
            if rounds and max(rounds) > after:
                return int(max(rounds))
            time.sleep(0.5)
        pytest.fail((lab.folder / "superlink.log").read_text())

    node = lab.connect("west", tiny)
    first = took_part(0)
    os.killpg(node.pid, signal.SIGTERM)
    node.wait(timeout=20)
    node = lab.connect("west", tiny)
    try:
        assert took_part(first) > first >= 2
    finally:
        lab.flwr("stop", number, "lab")
        os.killpg(node.pid, signal.SIGTERM)
        node.wait(timeout=20)
