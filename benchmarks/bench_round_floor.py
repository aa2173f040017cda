"""Seconds a round with next to no work, over a SuperLink on this machine: what the machinery alone costs.

    python benchmarks/bench_round_floor.py [--rounds 4] [--repeats 1]
    python benchmarks/bench_round_floor.py --ways lockstep --rounds 60

* minimal   Flower's own smallest app: two SuperNodes echo 18 arrays, 5 kB. The baseline of the ratios.
* stock     this app, tiny model, private, with Flower's own processes: one a message.
* resident  the same with `llmchain-fl coordinator up` and `site up`.
* lockstep  resident, three sites, one step a round (not played unless it is named).

They take turns, without TLS, on free ports. "a round": median over the rounds after the first. "CPU a round": of
all processes of the lab while the run was under way, imports of processes for one message included, by round.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from bench import ROOT, show, write

NAMES = ("north", "south", "west")
HERE, DELTA = "127.0.0.1", 1e-4
LLMCHAIN_FL = (sys.executable, "-m", "llmchain_fl")
PROJECT = """
[project]
name = "echo"
version = "1.0.0"
license = "Apache-2.0"
dependencies = []
[tool.flwr.app]
publisher = "bench"
[tool.flwr.app.components]
serverapp = "echo_app:server"
clientapp = "echo_app:client"
[tool.flwr.app.config]
rounds = 4
"""
ECHO = """
import time
import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
client = ClientApp()
server = ServerApp()
@client.train()
def train(message, context):
    return Message(message.content, reply_to=message)
@server.main()
def main(grid, context):
    while len(list(grid.get_node_ids())) < 2:
        time.sleep(0.5)
    for number in range(int(context.run_config["rounds"])):
        start = time.monotonic()
        content = RecordDict({"a": ArrayRecord([np.zeros((8, 8), np.float32) for _ in range(18)])})
        asked = [Message(content, dst_node_id=node, message_type="train") for node in grid.get_node_ids()]
        assert len(list(grid.send_and_receive(asked))) == 2
        print(f"ROUND {number} {time.monotonic() - start:.3f}", flush=True)
"""
SITE = """
name = "{name}"
[data]
train = "{{stage}}.jsonl"
[limits]
epsilon = 500.0
delta = {delta}
[approved]
any = true
"""


class Lab:
    """Processes in one folder; everything ends with its block."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        switches = {"FLWR_HOME": str(folder / "flwr"), "FLWR_TELEMETRY_ENABLED": "0", "OMP_NUM_THREADS": "1"}
        switches |= {"FLWR_DISABLE_UPDATE_CHECK": "1", "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1"}
        self.environment = {**os.environ, **switches, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        (folder / "flwr").mkdir(parents=True)
        config = f'[superlink.lab]\naddress = "{HERE}:{self.port}"\ninsecure = true\n'
        (folder / "flwr" / "config.toml").write_text(config)
        self.started: list[subprocess.Popen[bytes]] = []

    def spawn(self, *command: str, resident: bool = False) -> None:
        """In a session of its own."""
        environment = {**self.environment, "PYTHONPATH": str(ROOT)} if resident else self.environment
        with (self.folder / f"{len(self.started)}.log").open("wb") as log:
            one = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        self.started.append(one)

    def cpu(self) -> float:
        """CPU seconds so far of all processes of this lab; of those that have ended, where they were waited for."""
        total = 0.0
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("FLWR_HOME") == self.environment["FLWR_HOME"]:
                    total += sum(process.cpu_times()[:4])
        return total

    def logs(self) -> str:
        """All that was said."""
        return "".join(path.read_text(errors="replace") for path in self.folder.glob("*.log"))

    def wait(self, nodes: int, executors: int) -> None:
        """Until so many nodes are connected and so many executors have imported: that is no part of a round."""
        end = time.monotonic() + 300
        while time.monotonic() < end:
            said = self.logs()
            if said.count("SuperNode ID") >= nodes and said.count("CPU s of imports, once") == executors:
                return
            time.sleep(0.5)
        raise SystemExit(f"the lab did not come up\n{said[-3000:]}")

    def play(self, app: Path, config: str) -> str:
        """``flwr run``, when two nodes are there or soon will be."""
        words = ["flwr", "run", str(app), "lab", "--stream", "--run-config", config]
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=1800, check=False)
        return done.stdout + done.stderr

    def stop(self) -> None:
        """Everything that was started, gently first."""
        for one in self.started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(one.pid, 15)
        for one in self.started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                one.wait(timeout=40)
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("FLWR_HOME") == self.environment["FLWR_HOME"]:
                    process.kill()


def free_port() -> int:
    """One of this machine."""
    with socket.socket() as probe:
        probe.bind((HERE, 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def lab(folder: Path, resident: bool, sites: list[Path | None]) -> Iterator[Lab]:
    """A SuperLink and its sites, up and warm."""
    made, link = Lab(folder), ("--insecure", "--superlink")
    try:
        if resident:
            made.spawn(*LLMCHAIN_FL, "coordinator", "up", "--insecure", "--port", str(made.port), resident=True)
        else:
            words = ("--insecure", "--disable-runtime-dependency-installation", "--host", HERE)
            made.spawn("flower-superlink", *words, "--port", str(made.port))
        for site in sites:
            if resident:
                up = (*LLMCHAIN_FL, "site", "up", str(site), *link, f"{HERE}:{made.port}")
                made.spawn(*up, resident=True)
            else:
                told = () if site is None else ("--node-config", f'site="{site}"')
                words = (f"{HERE}:{made.port}", "--host", HERE, "--port", str(free_port()))
                made.spawn("flower-supernode", *link, *words, *told)
        made.wait(len(sites), len(sites) + 1 if resident else 0)
        yield made
    finally:
        made.stop()


def tiny(folder: Path, rounds: int, lockstep: bool, **others: dict[str, object]) -> tuple[Path, list[Path]]:
    """(scenario, site files) of a private run over a tiny random BERT, those of the tests; ``others``: sections."""
    sys.path[:0] = [str(ROOT)]
    from importlib.util import module_from_spec, spec_from_file_location

    def load(name: str, path: str):  # type: ignore[no-untyped-def]
        spec = spec_from_file_location(name, ROOT / path)
        sys.modules[name] = module = module_from_spec(spec)  # type: ignore[arg-type]
        spec.loader.exec_module(module)  # type: ignore[union-attr]
        return module

    small = load("tiny_models", "tests/conftest.py").Small(folder)
    made = load("tiny_federation", "tests/integration/conftest.py").TinyFederation(folder, small.bert, small.labels)
    privacy = {"enabled": True, "noise_multiplier": 1.0, "delta": DELTA}
    stage = [{"name": "first", "rounds": rounds}]
    names = NAMES if lockstep else NAMES[:2]
    one_step = {"train": {"method": "lockstep", "steps": 1}, "aggregation": {"rule": "ffa"}}
    sites, data = {"count": len(names), "held_out": 0.0}, {"train": "at-the-sites", **others.pop("data", {})}
    sections = {"sites": sites, "privacy": privacy, "data": data, "stage": stage} | (one_step if lockstep else {})
    scenario = made.scenario(folder / "s.toml", **(sections | others))
    files = []
    for name in names:
        (folder / name).mkdir()
        (folder / name / "site.toml").write_text(SITE.format(name=name, delta=DELTA))
        shutil.copy(made.train, folder / name / "first.jsonl")
        files.append(folder / name / "site.toml")
    return scenario, files


def measured(way: str, rounds: int) -> tuple[list[float], float, list[float]]:
    """(seconds of each round, CPU seconds a round of the lab, CPU seconds of each train message if they are told)."""
    folder = Path(tempfile.mkdtemp(prefix="floor-"))
    if way == "minimal":
        app, config, sites = folder / "echo", f"rounds={rounds}", [None, None]
        app.mkdir()
        (app / "pyproject.toml").write_text(PROJECT)
        (app / "echo_app.py").write_text(ECHO)
        pattern = r"ROUND \d+ ([\d.]+)"
    else:
        scenario, sites = tiny(folder, rounds, way == "lockstep")  # type: ignore[assignment]
        app, config = folder / "llmchain-fl", f'scenario="{scenario}" out="{folder / "run"}"'
        shutil.copytree(ROOT, app, ignore=shutil.ignore_patterns(".*", "__pycache__", "runs", "out", "_app"))
        pattern = r"^round \d+/\d+ .*, ([\d.]+) s$"
    with lab(folder / "lab", way in ("resident", "lockstep"), sites) as up:  # type: ignore[arg-type]
        before = up.cpu()
        said = up.play(app, config)
        cpu = up.cpu() - before
        logs = up.logs()
    seconds = [float(one) for one in re.findall(pattern, said, re.M)]
    if len(seconds) != rounds:
        raise SystemExit(f"{way}: {len(seconds)} of {rounds} rounds\n{said[-3000:]}\n{logs[-3000:]}")
    return seconds, cpu / rounds, [float(one) for one in re.findall(r"train, round \d+: .*?, ([\d.]+) CPU s", logs)]


def main() -> None:
    """All three ways in turn, and a table."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--rounds", type=int, default=4)
    asked.add_argument("--repeats", type=int, default=1)
    asked.add_argument("--ways", default="minimal,resident,stock")
    told = asked.parse_args()
    found: dict[str, list[tuple[list[float], float, list[float]]]] = {}
    for _ in range(told.repeats):
        for way in told.ways.split(","):
            found.setdefault(way, []).append(measured(way, told.rounds))
    middle = {way: statistics.median(s for run in runs for s in run[0][1:]) for way, runs in found.items()}
    lines = []
    for way, runs in found.items():
        messages = [cpu for run in runs for cpu in run[2]]
        cpu = statistics.median(run[1] for run in runs)
        ratio = f"{middle[way] / middle['minimal']:.2f}" if "minimal" in middle else "-"
        told_cpu = f"{statistics.median(messages):.2f}" if messages else "-"
        whole = statistics.median(sum(run[0]) for run in runs)
        lines.append((way, f"{middle[way]:.2f}", ratio, f"{whole:.0f}", f"{cpu:.1f}", told_cpu))
    header = ("way", "a round, s", "ratio", "all rounds, s", "CPU a round, s", "CPU a train message, s")
    show(f"{told.rounds} rounds, {told.repeats} times, load {os.getloadavg()[1]:.1f}", header, lines)
    write("round_floor", {"header": header, "lines": lines, "runs": found})


if __name__ == "__main__":
    main()
