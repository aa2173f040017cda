"""What does the framework cost? 20 sites, 3 rounds, MiniLM, the same batches four ways.

    python benchmarks/bench_overhead.py [--repeats 3]

* bare      a for-loop over the same sites, batches, micro-batches and kept frozen layers: no Flower, no messages, no
            admission, no records on disk. The baseline of the ratios.
* plain     the loop most people write: torch + peft, whole batches, nothing kept. For orientation.
* in-process  `llmchain-fl simulate` as it is.
* ray       the same run on Flower's Ray simulation.

Wall time is that of the whole process, imports and model load included ("whole"), and of the rounds alone ("rounds");
memory is the highest sum of PSS over the process and its children, polled every 0.2 s. Each way runs in its own
process, in turn, `--repeats` times; medians are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
from bench import ROOT, show, write

SETTINGS = [
    "stage.rounds=3",
    "sites.count=20",
    "sites.partition=iid",
    "sites.column=",
    "sites.held_out=0",
    "privacy.enabled=false",
    "continual.guards=[]",
    "data.test=",
    "data.train_size=2000",
    "train.steps=8",
    "train.sampling_rate=0.32",
    "train.batch_size=32",
]


def configuration():  # type: ignore[no-untyped-def]
    """One stage of the demo's data, 20 sites, no scores (they are not part of training)."""
    import tomllib

    from llmchain_fl.config.read import apply_settings, build
    from llmchain_fl.scenario import find_scenario

    tree = tomllib.loads(find_scenario("demo-lora").read_text())
    tree["stage"] = [{"name": "all", "rounds": 3}]
    return build(apply_settings(tree, [s for s in SETTINGS if not s.startswith("stage")]))


def run_framework(backend: str) -> float:
    """Seconds of the rounds, as the run itself recorded them."""
    from llmchain_fl.config.write import to_toml
    from llmchain_fl.progress import Silent
    from llmchain_fl.run_dir import RunDir
    from simulations.run import simulate

    config = configuration()
    run = RunDir.create(Path(tempfile.mkdtemp()) / "run", to_toml(config))
    simulate(config, run, Silent(), backend)
    return sum(row["value"] for row in run.rows() if row["metric"] == "seconds")


def run_loop(tricks: bool) -> float:
    """The bare loop (``tricks``) or the plain one; returns the seconds of its rounds."""
    import numpy as np
    import torch

    from client.site import Site
    from llmchain_fl.core.privacy.sampling import poisson_batches, seeded_uniform
    from llmchain_fl.core.work import open_work
    from llmchain_fl.data.source import read_rows
    from llmchain_fl.data.stages import public_labels
    from llmchain_fl.planning.work import work_from
    from simulations.prepare import prepare_sites

    config = configuration()
    torch.set_num_threads(config.model.threads)
    if not tricks:
        config = config.model_copy(update={"model": config.model.model_copy(update={"cache_mb": 0})})
    sites: list[Site] = prepare_sites(config, Path(tempfile.mkdtemp()))
    work = work_from(config, public_labels(config), ("lora_B",), None)
    resident, task = open_work(work.resident, work.task)
    data = {}
    current = resident.trained.clone()
    started = time.monotonic()
    for number in range(1, 4):
        total = torch.zeros_like(current)
        for site in sites:
            if site.name not in data:
                rows = read_rows(
                    site.data.train.replace("{stage}", "all"),
                    mapping={},
                    required=("text", "label"),
                    split="train",
                    seed=0,
                )
                data[site.name] = task.encode(rows.records)
            examples = data[site.name]
            resident.trained.copy_(current)
            theta = torch.nn.Parameter(resident.trained)
            optimizer = torch.optim.Adam([theta], lr=config.train.lr)
            parameters = [resident.parameters[name] for name in resident.trained_names]
            uniform = seeded_uniform(config.seed, site.name, number)
            for drawn in poisson_batches(len(examples), config.train.sampling_rate, config.train.steps, uniform):
                index = sorted(map(int, drawn), key=examples.length) if tricks else [int(i) for i in drawn]
                size = config.train.micro_batch if tricks else len(index)
                gradient = torch.zeros_like(theta)
                for start in range(0, len(index), size):
                    loss = task.losses(task.forward(examples, index[start : start + size])).sum()
                    gradient += torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters)])
                theta.grad = gradient / config.train.batch_size
                optimizer.step()
            total += resident.trained
        current = total / len(sites)
    if not np.isfinite(float(current.norm())):
        raise RuntimeError("the loop diverged")
    return time.monotonic() - started


WAYS = {
    "bare": lambda: run_loop(True),
    "plain": lambda: run_loop(False),
    "in-process": lambda: run_framework("in-process"),
    "ray": lambda: run_framework("ray"),
}


def family_memory(process: psutil.Process) -> float:
    """PSS of a process and all its children, MB."""
    total = 0.0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += member.memory_full_info().pss / 2**20
        except (psutil.Error, OSError):
            continue
    return total


def measure(way: str) -> tuple[float, float, float]:
    """(whole seconds, seconds of rounds, peak MB) of one way in its own process."""
    started = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, __file__, "--one", way],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    peak = 0.0
    stop = threading.Event()

    def poll() -> None:
        nonlocal peak
        process = psutil.Process(child.pid)
        while not stop.wait(0.2):
            try:
                peak = max(peak, family_memory(process))
            except psutil.Error:
                return

    watcher = threading.Thread(target=poll)
    watcher.start()
    out, _ = child.communicate()
    stop.set()
    watcher.join()
    if child.returncode:
        sys.exit(f"{way} failed")
    return time.monotonic() - started, float(json.loads(out.strip().splitlines()[-1])), peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(WAYS[given.one]()))
        return
    ways = given.ways.split(",")
    found: dict[str, list[tuple[float, float, float]]] = {way: [] for way in ways}
    for _ in range(given.repeats):
        for way in ways:
            found[way].append(measure(way))
    middle = {way: [statistics.median(column) for column in zip(*values, strict=True)] for way, values in found.items()}
    base = middle[ways[0]]
    lines = [
        [
            way,
            f"{whole:.1f}",
            f"{whole / base[0]:.2f}x",
            f"{rounds:.1f}",
            f"{rounds / base[1]:.2f}x",
            f"{peak:.0f}",
            f"{peak / base[2]:.2f}x",
        ]
        for way, (whole, rounds, peak) in middle.items()
    ]
    show(
        f"20 sites, 3 rounds, MiniLM, medians of {given.repeats}; ratios to {ways[0]}",
        ["way", "whole s", "", "rounds s", "", "peak MB (PSS)", ""],
        lines,
    )
    write("overhead", {"runs": found, "median": middle})


if __name__ == "__main__":
    main()
