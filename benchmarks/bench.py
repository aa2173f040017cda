"""What all benchmarks share: run a scenario, print one table, write one JSON under ``benchmarks/out``."""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "benchmarks" / "out"
sys.path.insert(0, str(ROOT))
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
logging.getLogger("absl").setLevel(logging.ERROR)

from llmchain_fl.cli.live import PlainView  # noqa: E402
from llmchain_fl.config.read import read_config  # noqa: E402
from llmchain_fl.config.write import to_toml  # noqa: E402
from llmchain_fl.run_dir import RunDir  # noqa: E402
from llmchain_fl.scenario import find_scenario  # noqa: E402


def need(path: str) -> Path:
    """A data file beside the checkout; the benchmark ends with a clear word if it is not there."""
    found = ROOT / path
    if not found.exists():
        sys.exit(f"this benchmark needs {path} beside the checkout")
    return found


def play(
    scenario: str,
    settings: Sequence[str],
    backend: str = "in-process",
    *,
    keep: Path | None = None,
    remember: bool = False,
) -> RunDir:
    """Run a scenario to its end in a temporary run directory (or in ``keep``).

    ``remember``: outputs of frozen layers stay for the next run of this process; not for timings.
    """
    from rich.console import Console

    from simulations.run import share_outputs, simulate

    os.chdir(ROOT)
    path = keep or Path(tempfile.mkdtemp(prefix="bench-")) / "run"
    if keep is not None:
        shutil.rmtree(keep, ignore_errors=True)
    config = read_config(find_scenario(scenario), settings)
    run = RunDir.create(path, to_toml(config))
    if remember:
        share_outputs(config)
    simulate(config, run, PlainView(Console(stderr=True)), backend)
    return run


def last(run: RunDir, metric: str, **where: Any) -> float:
    """The last value of a metric."""
    return [
        row["value"] for row in run.rows() if row["metric"] == metric and all(row.get(k) == v for k, v in where.items())
    ][-1]


def spread(values: Sequence[float]) -> str:
    """``mean +- sd (n)``."""
    sd = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.4f} +- {sd:.4f} (n={len(values)})"


def show(title: str, header: Sequence[str], lines: Sequence[Sequence[Any]]) -> None:
    """One plain table on stdout."""
    cells = [[str(c) for c in row] for row in [header, *lines]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    print(f"\n{title}")
    for row in cells:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))


def write(name: str, result: dict[str, Any]) -> None:
    """``benchmarks/out/NAME.json``, with the machine it was made on in general words."""
    OUT.mkdir(parents=True, exist_ok=True)
    import torch

    machine = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    (OUT / f"{name}.json").write_text(
        json.dumps({"machine": machine, "command": sys.argv[1:], **result}, indent=2) + "\n"
    )
    print(f"\nwritten: benchmarks/out/{name}.json")
