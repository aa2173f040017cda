"""What does a simulation cost beside the loop that it stands for? Three shapes of work, each played in every way.

    python benchmarks/bench_simulation.py [--repeats 3] [--shapes short,long,causal] [--ways bare,1,2,ray]

* short     MiniLM, 100 sites with 20 short texts each: what a round costs beside training shows most.
* long      MiniLM, 4 sites with 100 texts of 64 tokens: training is nearly all of it.
* causal    a tiny Llama, 10 sites with 40 dialogues each: instruction tuning.

* bare      a for-loop over the same sites, batches, micro-batches and kept frozen layers: no Flower, no messages, no
            admission, no records on disk. The baseline of the ratios.
* plain     the loop most people write: torch + peft, whole batches, nothing kept. For orientation.
* 1, 2, ..  `llmchain-fl simulate --workers N`.
* ray       the same run on Flower's Ray simulation.

"whole" is the wall time of the process, imports and model load included, "rounds" that of the rounds alone, "CPU" what
it and its workers computed; memory is the highest sum of PSS over all of them, looked at every second (a
look is not free). Each way runs in its own process, in turn, `--repeats` times; medians are compared. Each run is told
as it ends.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import psutil
from bench import ROOT, show, write

ROUNDS = 3
COMMON = ["sites.partition=iid", "sites.column=", "sites.held_out=0", "privacy.enabled=false", "continual.guards=[]"]
COMMON += ["data.test=", "data.baseline=0", "model.threads=1", "train.batch_size=16"]
SHAPES = {
    "short": ("demo-lora", ["sites.count=100", "data.train_size=2000", "train.steps=2", "train.sampling_rate=0.5"]),
    "long": (
        "demo-lora",
        ["sites.count=4", "data.train_size=400", "train.steps=8", "train.sampling_rate=0.16", "model.max_tokens=64"],
    ),
    "causal": (
        "instructions",
        ["sites.count=10", "data.train_size=400", "train.steps=2", "train.sampling_rate=0.4", "model.max_tokens=96"],
    ),
}


def configuration(shape: str):  # type: ignore[no-untyped-def]
    """One stage, no scores (they are not part of training)."""
    import tomllib

    from llmchain_fl.config.read import apply_settings, build
    from llmchain_fl.scenario import find_scenario

    scenario, settings = SHAPES[shape]
    tree = tomllib.loads(find_scenario(scenario).read_text())
    tree["stage"] = [{"name": "all", "rounds": ROUNDS}]
    return build(apply_settings(tree, [*COMMON, *settings]))


def run_framework(shape: str, backend: str, workers: int = 1) -> float:
    """Seconds of the rounds, as the run itself recorded them."""
    from llmchain_fl.config.write import to_toml
    from llmchain_fl.progress import Silent
    from llmchain_fl.run_dir import RunDir
    from simulations.run import simulate

    config = configuration(shape)
    run = RunDir.create(Path(tempfile.mkdtemp()) / "run", to_toml(config))
    simulate(config, run, Silent(), backend, workers=workers)
    return sum(row["value"] for row in run.rows() if row["metric"] == "seconds")


def run_loop(shape: str, tricks: bool) -> float:
    """The bare loop (``tricks``) or the plain one; returns the seconds of its rounds."""
    import numpy as np
    import torch

    from llmchain_fl.aggregation import RULES
    from llmchain_fl.core.privacy.sampling import poisson_batches, seeded_uniform
    from llmchain_fl.core.tasks.kind import task_kind
    from llmchain_fl.core.work import open_work
    from llmchain_fl.data.source import read_rows
    from llmchain_fl.data.stages import public_labels
    from llmchain_fl.planning.work import work_from
    from simulations.prepare import prepare_sites

    config = configuration(shape)
    torch.set_num_threads(config.model.threads)
    if not tricks:
        config = config.model_copy(update={"model": config.model.model_copy(update={"cache_mb": 0})})
    sites = prepare_sites(config, Path(tempfile.mkdtemp()))
    work = work_from(config, public_labels(config), RULES[config.aggregation.rule].trained, None)
    resident, task = open_work(work.resident, work.task)
    data = {}
    current = resident.trained.clone()
    started = time.monotonic()
    for number in range(1, ROUNDS + 1):
        total = torch.zeros_like(current)
        for site in sites:
            if site.name not in data:
                rows = read_rows(
                    site.data.train.replace("{stage}", "all"),
                    mapping={},
                    required=task_kind(config.task.kind).columns,
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


def play(shape: str, way: str) -> float:
    """Seconds of the rounds of one shape played in one way."""
    if way in ("bare", "plain"):
        return run_loop(shape, tricks=way == "bare")
    return run_framework(shape, "ray") if way == "ray" else run_framework(shape, "in-process", int(way))


def family_memory(process: psutil.Process) -> float:
    """PSS of a process and all its children, MB."""
    total = 0.0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += member.memory_full_info().pss / 2**20
        except (psutil.Error, OSError):
            continue
    return total


class Cost(NamedTuple):
    """Of one run in its own process."""

    whole: float
    rounds: float
    cpu: float
    peak_mb: float


def measure(shape: str, way: str) -> Cost | None:
    """Play it, and look on; None: it failed (Ray gives up where the machine is too busy to start its processes)."""
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    child = subprocess.Popen(
        [sys.executable, __file__, "--one", f"{shape}/{way}"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    peak = 0.0
    stop = threading.Event()

    def poll() -> None:
        nonlocal peak
        process = psutil.Process(child.pid)
        while not stop.wait(1.0):
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
        return None
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(time.monotonic() - started, float(json.loads(out.strip().splitlines()[-1])), cpu, peak)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--ways", default="bare,1,2,ray")
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(play(*given.one.split("/"))))
        return
    shapes, ways = given.shapes.split(","), given.ways.split(",")
    found: dict[tuple[str, str], list[Cost]] = {(shape, way): [] for shape in shapes for way in ways}
    for _ in range(given.repeats):
        for shape, way in found:
            cost = measure(shape, way)
            print(f"{shape}/{way}: {cost or 'failed'}", file=sys.stderr, flush=True)
            found[shape, way] += [] if cost is None else [cost]
    whole = {key: runs for key, runs in found.items() if runs and found[key[0], ways[0]]}
    middle = {key: [statistics.median(column) for column in zip(*runs, strict=True)] for key, runs in whole.items()}
    lines = []
    for (shape, way), values in middle.items():
        ratios = [f"{value / base:.2f}x" for value, base in zip(values, middle[shape, ways[0]], strict=True)]
        numbers = [f"{value:.1f}" for value in values[:3]] + [f"{values[3]:.0f}"]
        lines.append([shape, way, *(cell for pair in zip(numbers, ratios, strict=True) for cell in pair)])
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    show(
        f"{ROUNDS} rounds, medians of {given.repeats}; ratios to {ways[0]}; load at the end {load:.1f} a core",
        ["shape", "way", "whole s", "", "rounds s", "", "CPU s", "", "peak MB (PSS)", ""],
        lines,
    )
    write("simulation", {f"{shape}/{way}": runs for (shape, way), runs in found.items()})


if __name__ == "__main__":
    main()
