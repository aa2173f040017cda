"""How often is the privacy gate wrong on correct code, and what does it cost?

    python benchmarks/bench_gate.py [--repeats 1000] [--own 100] [--model minilm]

* false alarms       the statistical checks of a practice site on the code as it is, `--repeats` times; those of a whole
                     site under each small setting `--own` times, their statistics on ideal numbers `--repeats` times
* cost               processor and wall seconds of each check, quick and full
* anchors            the two published values of the one-run bound (Steinke et al. 2023)
* own model          how much one person changes what the others add, in a real model, in float32 and bfloat16

Which faults the gate finds: bench_gate_mutants.py.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Sequence
from typing import Any

from bench import show, write

SMALL = {"rounds": 1, "steps": 6, "quiet": 256, "draws": 300, "canaries": 200, "canary_rounds": 1, "scores": 30}
STATISTICAL = (
    "noise and draws",
    "drawn batches",
    "empty steps",
    "restart",
    "telling bits",
    "entropy",
    "scores",
    "canaries",
)


def _repeated(names: Sequence[str], repeats: int) -> dict[str, Any]:
    """These checks on correct code, so many times."""
    import pytest

    from simulations.audit.effort import Effort
    from simulations.audit.gate import run_check

    alarms, findings, cpu, wall = [], 0, time.process_time(), time.perf_counter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        for _ in range(repeats):
            found = [f for name in names for f in run_check(name, Effort(**SMALL))]
            findings = len(found)
            alarms += [str(f) for f in found if not f.passed]
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"repeats": repeats, "findings": findings, "alarms": alarms, "cpu_s": cpu, "wall_s": wall}


def _ideal(repeats: int) -> dict[str, Any]:
    """The statistics that are taken of a whole site's noise, on ideal numbers of the same count."""
    import numpy as np

    from llmchain_fl.privacy.audit import noise_law
    from simulations.audit.own_noise import SHARE

    draw, alarms, cpu, wall = np.random.default_rng(), [], time.process_time(), time.perf_counter()
    for _ in range(repeats):
        rounds = [draw.normal(size=13_312) for _ in range(3)]
        flat = np.concatenate(rounds[:2])
        found = [
            noise_law.noise_size(flat, 1.0, SHARE / 2),
            noise_law.noise_shape(flat, 1.0, SHARE),
            noise_law.noise_repeats(flat, 1.0, SHARE),
            noise_law.noise_reuse(rounds, SHARE),
        ]
        alarms += [str(f) for f in found if not f.passed]
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"repeats": repeats, "findings": 4, "alarms": alarms, "cpu_s": cpu, "wall_s": wall}


def false_alarms(repeats: int, own: int) -> dict[str, Any]:
    """Of everything that is statistics."""
    from simulations.audit.gate import CHECKS

    settings = [name for name in CHECKS if name.startswith("own noise")]
    found = {
        "practice site": _repeated(STATISTICAL, repeats),
        f"whole site, {len(settings)} settings": _repeated(settings, own),
        "whole site's statistics, ideal numbers": _ideal(repeats),
    }
    lines = [
        [what, row["repeats"], row["findings"], len(row["alarms"]), f"{row['cpu_s']:.1f}", f"{row['wall_s']:.1f}"]
        for what, row in found.items()
    ]
    head = ["what", "repetitions", "findings each", "alarms", "processor s", "wall s"]
    show("False alarms on the code as it is", head, lines)
    for row in found.values():
        for alarm in row["alarms"]:
            print(f"  {alarm}")
    return found


def cost() -> dict[str, dict[str, float]]:
    """Processor seconds of each check, in the order of the gate; the first one of a whole site makes the base."""
    from simulations.audit.gate import CHECKS, EFFORTS, run_check

    table: dict[str, dict[str, float]] = {}
    for effort in EFFORTS:
        wall = time.perf_counter()
        for check in CHECKS:
            begun = time.process_time()
            run_check(check, EFFORTS[effort])
            table.setdefault(check, {})[effort] = time.process_time() - begun
        table.setdefault("wall seconds, all", {})[effort] = time.perf_counter() - wall
    lines = [[check, *(f"{seconds:.2f}" for seconds in row.values())] for check, row in table.items()]
    checks = {check: row for check, row in table.items() if check in CHECKS}
    total = [f"{sum(row[effort] for row in checks.values()):.2f}" for effort in EFFORTS]
    show("Processor seconds", ["check", *EFFORTS], [*lines, ["all", *total]])
    return table


def anchors() -> list[dict[str, float]]:
    """The published values."""
    from llmchain_fl.privacy.audit.one_run import Guesses, epsilon_bound

    cases = [(1000, 100, 75, 1e-4, 0.05, 0.673), (100_000, 1510, 1439, 1e-5, 0.05, 2.675)]
    rows = [{"canaries": m, "guesses": r, "right": v, "published": e, "here": epsilon_bound(Guesses(m, r, v), d, b)}
            for m, r, v, d, b, e in cases]  # fmt: skip
    lines = [
        [*(f"{row[k]:g}" for k in ("canaries", "guesses", "right", "published")), f"{row['here']:.4f}"] for row in rows
    ]
    show("One-run bound", ["canaries", "guesses", "right", "published", "here"], lines)
    return rows


def own_models(path: str) -> list[dict[str, Any]]:
    """The real model on made-up texts of 3 to 40 words: padding differs from batch to batch."""
    import numpy as np
    import torch

    from llmchain_fl.core.adapter.resident import ResidentSpec
    from llmchain_fl.core.adapter.value import AdapterSpec
    from llmchain_fl.core.base_model import BaseSpec
    from llmchain_fl.core.privacy.units import Units
    from llmchain_fl.core.tasks.spec import TaskSpec
    from llmchain_fl.core.work import open_work
    from simulations.audit.model import own_model

    labels = (("card", "a lost or stolen card"), ("loan", "a question about a loan"), ("rate", "exchange rates"))
    words = [
        "my",
        "card",
        "was",
        "lost",
        "in",
        "the",
        "city",
        "and",
        "i",
        "would",
        "like",
        "to",
        "know",
        "what",
        "please",
    ]
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(words, int(draw.integers(3, 40)))) for _ in range(32)]
    rows = [{"text": text, "label": labels[i % 3][0]} for i, text in enumerate(texts)]
    found = []
    for dtype in ("float32", "bfloat16"):
        spec = ResidentSpec(BaseSpec(path, dtype=dtype, device="cpu"), AdapterSpec(8, 16.0))
        resident, task = open_work(spec, TaskSpec("classification", labels=labels))
        resident.theta += 0.02 * torch.randn(resident.theta.shape, generator=torch.Generator().manual_seed(1))
        for micro in (16, 1):
            apart = own_model(task, task.encode(rows), Units.of_records(32), micro, 1e-3, 4)
            found.append({"dtype": dtype, "micro_batch": micro, **{f.name: f.measured for f in apart}})
    lines = [[f"{v:.3g}" if isinstance(v, float) else v for v in row.values()] for row in found]
    show(f"Own model ({path}, 32 people, in units of C)", list(found[0]), lines)
    return found


def main() -> None:
    """Everything, in order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--own", type=int, default=100)
    parser.add_argument("--model", default="minilm")
    told = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    torch.set_num_threads(1)
    logging.getLogger("llmchain_fl.client").setLevel(logging.CRITICAL + 1)
    result: dict[str, Any] = {"cost": cost(), "false_alarms": false_alarms(told.repeats, told.own)}
    result["anchors"] = anchors()
    if told.model:
        result["own_model"] = own_models(told.model)
    write("gate", result)


if __name__ == "__main__":
    main()
