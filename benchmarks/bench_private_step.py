"""What a private step costs: time and memory beside the non-private step on the very same batches.

    python benchmarks/bench_private_step.py            options: --repeats 7 --steps 12

All are the steps of ``client/training.py`` (gradient, division, Adam); a private one has per-person gradients, clipping
and secure noise on top. Four roads over the same batches: ``plain``; ``private``, as it is (fixed shapes, with the
fewest rows that this machine computes alike); ``one`` record a pass, exact by itself; and ``padded``, the road of
version 0.1, in which records are padded to the longest of their batch, so that one person changes what the others add:
the baseline of what exactness costs. Runs are interleaved, process CPU time is taken, the median ratio over repeats is
shown with its range. Peak memory is that of a process that runs one kind only, whole and above the loaded model.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from bench import ROOT, show, write
from torch import Tensor

from client.gradients import GradientFn, LossFn, gradient_of
from client.per_sample import PerSample
from client.steady import shape_for
from llmchain_fl.config.read import read_config
from llmchain_fl.core.adapter.resident import Resident
from llmchain_fl.core.privacy.noise import SecureNoise
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.privacy.units import Batch, Units
from llmchain_fl.core.tasks.base import Examples
from llmchain_fl.core.tasks.passes import Shape
from llmchain_fl.core.work import open_work
from llmchain_fl.data.stages import public_labels, stage_rows
from llmchain_fl.planning.work import work_from
from llmchain_fl.scenario import find_scenario

CASES = {
    "demo: q,v rank 4, last layer, persons": ["model.max_tokens=32"],
    "all layers, all linear, rank 8, persons": [
        'adapter.targets="all-linear"',
        "adapter.last_layers=0",
        "adapter.rank=8",
    ],
    "all layers, q,v rank 8, records": ['adapter.targets=["query","value"]', "adapter.last_layers=0", "adapter.rank=8"],
}
PRIVATE, PLAIN, ONE, PADDED = "private", "plain", "one", "padded"
ROWS = 16
"""Records of a pass, plain and padded."""


def prepare(case: str, steps: int) -> Callable[[str], None]:
    """A function that takes all steps of one kind over fixed batches."""
    config = read_config(find_scenario("demo-lora"), [*CASES[case], "data.train_size=1500", "sites.count=1"])
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

    longest = work.task.max_tokens
    shapes = {PRIVATE: shape_for(resident, task, longest, 0), ONE: Shape(1, longest), PLAIN: None, PADDED: None}

    each = {kind: replace(examples, kept={}, shape=shape) for kind, shape in shapes.items()}  # outputs of its own

    def play(kind: str) -> None:
        def loss(index: Sequence[int]) -> Tensor:
            return task.losses(task.forward(each[kind], index))

        theta = torch.nn.Parameter(resident.trained)
        optimizer = torch.optim.Adam([theta], lr=1e-4)
        with _road(kind, resident, each[kind], plan) as gradient:
            for batch in batches:
                theta.grad = gradient(batch, loss) / 16
                optimizer.step()

    return play


@contextmanager
def _road(kind: str, resident: Resident, examples: Examples, plan: PrivacyPlan) -> Iterator[GradientFn]:
    if kind != PADDED:
        with gradient_of(resident, examples, ROWS, None if kind == PLAIN else plan) as gradient:
            yield gradient
        return
    padded = Padded(resident, plan)
    try:
        yield padded
    finally:
        padded.rows.close()


class Padded:
    """The sum as version 0.1 made it: whole units to a batch, padded to its longest, one product over all rows."""

    unusable = 0.0

    def __init__(self, resident: Resident, plan: PrivacyPlan) -> None:
        self.rows, self.plan, self.size = PerSample(resident, ROWS), plan, resident.trained.numel()

    def __call__(self, batch: Batch, loss: LossFn) -> Tensor:
        """Noised sum, float32 [P]."""
        total, packs = torch.zeros(self.size), [[]]
        for unit in batch:
            if sum(map(len, packs[-1])) + len(unit) > ROWS:
                packs.append([])
            packs[-1].append(unit)
        for pack in packs:
            total += self._clipped(pack, loss) if pack else 0.0
        return SecureNoise().added(total, self.plan.noise_std)

    def _clipped(self, pack: Batch, loss: LossFn) -> Tensor:
        index = [int(record) for unit in pack for record in unit]
        rows, start = self.rows.rows(len(index), lambda: loss(index).sum().backward()), 0
        for position, unit in enumerate(pack):
            rows[position] = rows[start : start + len(unit)].sum(dim=0)
            start += len(unit)
        sums = rows[: len(pack)]
        return (self.plan.clip_norm / torch.linalg.vector_norm(sums, dim=1)).clamp_max(1.0) @ sums

    def paused(self) -> AbstractContextManager[None]:
        """There is no guard here."""
        return nullcontext()


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


def times(case: str, steps: int, repeats: int) -> dict[str, list[float]]:
    """CPU seconds of each private road / those of ``plain`` and, for the exact ones, of ``padded``; one a repeat."""
    found, play = defaultdict(list), prepare(case, steps)
    for _ in range(repeats + 1):
        spent = {}
        for kind in (PLAIN, PADDED, PRIVATE, ONE):
            started = time.process_time()
            play(kind)
            spent[kind] = time.process_time() - started
        for kind in (PADDED, PRIVATE, ONE):
            found[f"{kind}/{PLAIN}"].append(spent[kind] / spent[PLAIN])
        for kind in (PRIVATE, ONE):
            found[f"{kind}/{PADDED}"].append(spent[kind] / spent[PADDED])
    return {name: ratios[1:] for name, ratios in found.items()}


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
    lines, named = [], []
    for case in CASES:
        ratios = times(case, given.steps, given.repeats)
        plain, private = memory(case, PLAIN, given.steps), memory(case, PRIVATE, given.steps)
        named = list(ratios)
        lines.append(
            [
                case,
                *(f"{statistics.median(one):.3f} ({min(one):.3f} to {max(one):.3f})" for one in ratios.values()),
                f"{private[0] / plain[0]:.3f} ({plain[0]:.0f} -> {private[0]:.0f} MB)",
                f"{plain[1]:.0f} -> {private[1]:.0f} MB",
            ]
        )
    show(
        f"CPU time of a step, same batches, {given.repeats} repeats of {given.steps} steps, one thread",
        ["case", *named, "peak memory private/plain", "above the loaded model"],
        lines,
    )
    write("private-step", {"rows": lines})


if __name__ == "__main__":
    main()
