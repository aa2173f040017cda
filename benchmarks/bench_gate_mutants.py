"""Which faults does the privacy gate find? Every deliberate one of the tests against the check that is made for it.

    python benchmarks/bench_gate_mutants.py [--runs 1] [--all] [WORDS ...]

* `--runs`   how often each is tried (statistics may miss one)
* `--all`    against every other check too, and not only the one made for it: an hour
* WORDS      only faults whose name holds one of these

The faults are in tests/client/breakages, done to the real code. Those that no check found when the list
was first tried are marked: the checks came first, the lists after them, and what was missed became a check.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import time
from collections.abc import Callable
from typing import Any

from bench import ROOT, show, write

Breakages = dict[str, tuple[Callable[[Any], None], str, str]]


def breakages() -> dict[str, tuple[Breakages, tuple[str, ...]]]:
    """Group -> (what is broken, what was missed at first)."""
    path = ROOT / "tests" / "client" / "test_gate_breakages.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"this benchmark needs {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {group: (table.BREAKAGES, getattr(table, "MISSED", ())) for group, table in module.TABLES.items()}


def failed(apply: Callable[[Any], None], check: str) -> list[str]:
    """Findings of ``check`` that fail while the code is broken."""
    import pytest

    from llmchain_fl.core.adapter import resident
    from simulations.audit.gate import EFFORTS, run_check

    resident._resident.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        apply(patch)
        found = [f.name for f in run_check(check, EFFORTS["quick"]) if not f.passed]
    resident._resident.cache_clear()
    return found


def tried(runs: int, everything: bool, words: list[str]) -> list[dict[str, Any]]:
    """One row a fault."""
    from simulations.audit.gate import CHECKS

    rows = []
    for group, (table, missed) in breakages().items():
        for what, (apply, check, finding) in table.items():
            if words and not any(word in what for word in words):
                continue
            begun = time.process_time()
            hits = sum(finding in failed(apply, check) for _ in range(runs))
            row = {"group": group, "fault": what, "check": check, "finding": finding, "found": hits}
            row |= {"missed_at_first": what in missed, "cpu_s": time.process_time() - begun}
            if everything:
                row["others"] = [name for name in CHECKS if name != check and failed(apply, name)]
            rows.append(row)
    return rows


def main() -> None:
    """The table, and how many of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--all", action="store_true")
    told = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    torch.set_num_threads(1)
    logging.getLogger("llmchain_fl.client").setLevel(logging.CRITICAL + 1)
    rows = tried(told.runs, told.all, told.words)
    lines = [
        [
            row["fault"] + (" *" if row["missed_at_first"] else ""),
            f"{row['check']}: {row['finding']}",
            f"{row['found']}/{told.runs}",
            *([len(row["others"])] if told.all else []),
        ]
        for row in rows
    ]
    head = ["fault (*: missed when first tried)", "found by", "runs", *(["other checks"] if told.all else [])]
    show("Faults of the gate's tests", head, lines)
    caught = sum(row["found"] == told.runs for row in rows)
    print(f"  found by the check made for it in every run: {caught} of {len(rows)}")
    print(f"  missed when first tried, found now: {sum(row['missed_at_first'] for row in rows)}")
    write("gate_mutants", {"runs": told.runs, "faults": rows})


if __name__ == "__main__":
    main()
