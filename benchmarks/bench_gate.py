"""What does the privacy gate catch, how often is it wrong, and what does it cost?

    python benchmarks/bench_gate.py [--repeats 1000] [--runs 1] [--model minilm]

* breakage x check   every deliberate fault of tests/client/test_gate_breakages.py against every check, `--runs` times:
                     FOUND by the check that is made for it, found by another one, or not at all (.)
* false alarms       the statistical checks on the code as it is, `--repeats` times, each about 0.1 s
* cost               processor seconds of each check, quick and full
* anchors            the two published values of the one-run bound (Steinke et al. 2023)
* own model          how much one person changes what the others add, in a real model, in float32 and bfloat16
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
from pathlib import Path
from typing import Any

from bench import ROOT, show, write

SMALL = {"rounds": 1, "steps": 6, "quiet": 256, "draws": 300, "canaries": 200, "canary_rounds": 1}
STATISTICAL = ("noise and draws", "drawn batches", "empty steps", "telling bits", "canaries")


def breakages() -> Any:
    """The table of the test file."""
    path = ROOT / "tests" / "client" / "test_gate_breakages.py"
    spec = importlib.util.spec_from_file_location("test_gate_breakages", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"this benchmark needs {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.BREAKAGES


def matrix(runs: int) -> list[dict[str, Any]]:
    """For each breakage and check: in how many of ``runs`` the check failed."""
    import pytest

    from client.audit.gate import CHECKS, EFFORTS, run_check

    rows: list[dict[str, Any]] = []
    for what, (apply, meant, finding) in {"(nothing broken)": (lambda patch: None, "", ""), **breakages()}.items():
        found: dict[str, int] = {}
        for check in CHECKS:
            for _ in range(runs):
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr("os.fsync", lambda descriptor: None)
                    apply(patch)
                    failed = [f.name for f in run_check(check, EFFORTS["quick"]) if not f.passed]
                hit = finding in failed if check == meant else bool(failed)
                found[check] = found.get(check, 0) + int(hit)
        rows.append({"breakage": what, "made_for_it": meant, "found": found})
    return rows


def show_matrix(rows: list[dict[str, Any]], runs: int) -> None:
    """One line a breakage."""
    from client.audit.gate import CHECKS

    def cell(row: dict[str, Any], check: str) -> str:
        count = row["found"][check]
        share = "" if count == runs or not count else f" {count}/{runs}"
        return ("FOUND" if check == row["made_for_it"] else "found") + share if count else "."

    show(
        f"Breakage x check ({runs} run(s) each; FOUND: by the check made for it)",
        ["breakage", *CHECKS],
        [[row["breakage"], *(cell(row, check) for check in CHECKS)] for row in rows],
    )
    broken = [row for row in rows if row["made_for_it"]]
    caught = sum(row["found"][row["made_for_it"]] == runs for row in broken)
    print(f"  caught by the check made for it in every run: {caught} of {len(broken)}")


def false_alarms(repeats: int) -> dict[str, Any]:
    """The statistical checks on correct code."""
    import pytest

    from client.audit.effort import Effort
    from client.audit.gate import run_check

    memory = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    alarms, statistics, begun, wall = [], 0, time.process_time(), time.perf_counter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        for _ in range(repeats):
            found = [f for name in STATISTICAL for f in run_check(name, Effort(**SMALL), memory)]
            statistics = len(found)
            alarms += [str(f) for f in found if not f.passed]
    cpu, wall = time.process_time() - begun, time.perf_counter() - wall
    show(
        "False alarms on the code as it is",
        ["repetitions", "findings each", "alarms", "processor s", "wall s", "processor s each"],
        [[repeats, statistics, len(alarms), f"{cpu:.1f}", f"{wall:.1f}", f"{cpu / max(repeats, 1):.3f}"]],
    )
    for alarm in alarms:
        print(f"  {alarm}")
    return {"repeats": repeats, "findings": statistics, "alarms": alarms, "cpu_s": cpu, "wall_s": wall}


def cost() -> dict[str, dict[str, float]]:
    """Processor seconds of each check, disk flushes included."""
    from client.audit.gate import CHECKS, EFFORTS, run_check

    table: dict[str, dict[str, float]] = {}
    for check in CHECKS:
        table[check] = {}
        for effort in EFFORTS:
            begun = time.process_time()
            run_check(check, EFFORTS[effort])
            table[check][effort] = time.process_time() - begun
    lines = [[check, *(f"{seconds:.2f}" for seconds in row.values())] for check, row in table.items()]
    total = [f"{sum(row[effort] for row in table.values()):.2f}" for effort in EFFORTS]
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

    from client.audit.model import own_model
    from llmchain_fl.adapter.resident import ResidentSpec
    from llmchain_fl.adapter.value import AdapterSpec
    from llmchain_fl.base_model import BaseSpec
    from llmchain_fl.privacy.units import Units
    from llmchain_fl.tasks.spec import TaskSpec
    from llmchain_fl.work import open_work

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
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--model", default="minilm")
    told = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    torch.set_num_threads(1)
    result: dict[str, Any] = {"anchors": anchors(), "breakages": matrix(told.runs)}
    show_matrix(result["breakages"], told.runs)
    result["false_alarms"] = false_alarms(told.repeats)
    result["cost"] = cost()
    if told.model:
        result["own_model"] = own_models(told.model)
    write("gate", result)


if __name__ == "__main__":
    main()
