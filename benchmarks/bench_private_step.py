"""What a private step costs: time and memory beside the non-private step on the very same batches.

    python benchmarks/bench_private_step.py            options: --repeats 7 --steps 12

Both are the steps of ``client/training.py`` (gradient, division, Adam); the private one has per-person gradients,
clipping and secure noise on top. Runs of steps are interleaved (plain, private, plain, ...), process CPU time is taken,
the median ratio over repeats is shown with its range. Peak memory is that of a process that runs one kind only, whole
and above the loaded model.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from bench import ROOT, show, write

from client.gradients import gradient_of
from llmchain_fl.config.read import read_config
from llmchain_fl.data.stages import public_labels, stage_rows
from llmchain_fl.privacy.plan import PrivacyPlan
from llmchain_fl.privacy.units import Units
from llmchain_fl.scenario import find_scenario
from llmchain_fl.work import open_work, work_from

CASES = {
    "demo: q,v rank 4, last layer, persons": ["model.max_tokens=32"],
    "all layers, all linear, rank 8, persons": [
        'adapter.targets="all-linear"',
        "adapter.last_layers=0",
        "adapter.rank=8",
    ],
    "all layers, q,v rank 8, records": ['adapter.targets=["query","value"]', "adapter.last_layers=0", "adapter.rank=8"],
}
PRIVATE, PLAIN = "private", "plain"


def prepare(case: str, steps: int) -> Callable[[str], None]:
    """A function that takes all steps of one kind over fixed batches."""
    config = read_config(find_scenario("demo"), [*CASES[case], "data.train_size=1500", "sites.count=1"])
    labels = public_labels(config)
    trained = ("lora_B",) if "demo" in case else ("lora_A", "lora_B")
    work = work_from(config, labels, trained, None)
    resident, task = open_work(work.resident, work.task)
    rows = stage_rows(config, config.stage[0], "train", list(labels))
    examples = task.encode(rows.records)
    units = Units.of_records(len(rows)) if "records" in case else Units.of_people(rows.column("person"))
    uniform = np.random.default_rng(5).random
    batches = [
        sorted(batch, key=lambda unit: max(map(examples.length, unit)))
        for batch in units.batches(16 / len(units), steps, 8, uniform)
    ]
    plan = PrivacyPlan(0.1, 1.0, 1.0, steps, 16.0, 1e-5, records_per_unit=8)
    resident.theta.normal_(0, 0.02)

    def play(kind: str) -> None:
        theta = torch.nn.Parameter(resident.trained)
        optimizer = torch.optim.Adam([theta], lr=1e-4)
        with gradient_of(resident, 16, plan if kind == PRIVATE else None) as gradient:
            for batch in batches:
                theta.grad = gradient(batch, lambda index: task.losses(task.forward(examples, index))) / 16
                optimizer.step()

    return play


def peak(*, anew: bool = False) -> float:
    """Highest resident memory in MB so far; ``anew``: what is resident now, and count the highest from here (Linux)."""
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 1024


def memory(case: str, kind: str, steps: int) -> tuple[float, float]:
    """(peak MB of the process, MB above the loaded model) of one kind, in a process of its own."""
    answer = subprocess.run(
        [sys.executable, __file__, "--child", kind, "--case", case, "--steps", str(steps)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    found = json.loads(answer.stdout.splitlines()[-1])
    return float(found["peak"]), float(found["peak"] - found["loaded"])


def times(case: str, steps: int, repeats: int) -> list[float]:
    """CPU seconds private / CPU seconds plain, one ratio for each repeat."""
    ratios, play = [], prepare(case, steps)
    for _ in range(repeats + 1):
        spent = {}
        for kind in (PLAIN, PRIVATE):
            started = time.process_time()
            play(kind)
            spent[kind] = time.process_time() - started
        ratios.append(spent[PRIVATE] / spent[PLAIN])
    return ratios[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--child", default="")
    parser.add_argument("--case", default="")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.child:
        play = prepare(given.case, given.steps)
        loaded = peak(anew=True)
        play(given.child)
        print(json.dumps({"peak": peak(), "loaded": loaded}))
        return
    lines = []
    for case in CASES:
        ratios = times(case, given.steps, given.repeats)
        plain, private = memory(case, PLAIN, given.steps), memory(case, PRIVATE, given.steps)
        lines.append(
            [
                case,
                f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
                f"{private[0] / plain[0]:.3f} ({plain[0]:.0f} -> {private[0]:.0f} MB)",
                f"{plain[1]:.0f} -> {private[1]:.0f} MB",
            ]
        )
    show(
        f"private step / non-private step, same batches, {given.repeats} repeats of {given.steps} steps, one thread",
        ["case", "CPU time: median (range)", "peak memory", "above the loaded model"],
        lines,
    )
    write("private-step", {"rows": lines})


if __name__ == "__main__":
    main()
