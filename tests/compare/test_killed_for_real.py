"""A real comparison of real runs, killed in the middle: the same command ends it with the same numbers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

PLAN = """
title = "two rules"
scenario = "{scenario}"
seeds = [1]
report = ["bytes"]
[[axis]]
name = "rule"
[axis.values]
ffa = {{ "aggregation.rule" = "ffa" }}
fedit = {{ "aggregation.rule" = "fedit" }}
"""
SCENARIO = """
title = "tiny"
[model]
path = "{model}"
max_tokens = 12
[adapter]
rank = 2
[task]
labels = "generated:bank-messages"
[data]
train = "generated:bank-messages"
test = "generated:bank-messages"
train_size = 60
test_size = 40
[sites]
count = 3
[[stage]]
name = "all"
rounds = 12
"""
START = "from llmchain_fl.cli.main import main\nif __name__ == '__main__':\n    main()\n"


def command(folder: Path, out: Path) -> list[str]:
    return [sys.executable, str(folder / "start.py"), "compare", str(folder / "plan.toml"), "--out", str(out)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}


def numbers(out: Path) -> dict[str, Any]:
    cells = json.loads((out / "results.json").read_text())["cells"]
    kept = {"accuracy", "loss", "bytes"}
    return {
        cell["labels"]["rule"]: ({k: v for k, v in cell["numbers"].items() if k in kept}, cell["scores"])
        for cell in cells
    }


@pytest.mark.thorough
def test_a_comparison_killed_in_the_middle_goes_on_to_the_same_numbers(small: Any, tmp_path: Path) -> None:
    (tmp_path / "start.py").write_text(START)
    (tmp_path / "tiny.toml").write_text(SCENARIO.format(model=small.bert))
    (tmp_path / "plan.toml").write_text(PLAN.format(scenario=tmp_path / "tiny.toml"))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    subprocess.run(command(tmp_path, whole), env=environment(), check=True, timeout=300, stdout=subprocess.DEVNULL)

    first = subprocess.Popen(command(tmp_path, cut), env=environment(), stdout=subprocess.DEVNULL)
    metrics, until = cut / "cells" / "ffa-seed1" / "metrics.jsonl", time.monotonic() + 120
    while not (metrics.is_file() and b'"round": 3' in metrics.read_bytes()):
        assert first.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.wait(20)
    assert not (cut / "cells" / "ffa-seed1" / "cell.json").exists()
    assert not (cut / "results.json").exists()

    again = subprocess.run(
        command(tmp_path, cut), env=environment(), check=True, timeout=300, capture_output=True, text=True
    )
    assert "rule ffa, seed 1: accuracy" in again.stdout
    assert numbers(cut) == numbers(whole)
    third = subprocess.run(
        command(tmp_path, cut), env=environment(), check=True, timeout=120, capture_output=True, text=True
    )
    assert "2 cells, 2 done before" in third.stdout
