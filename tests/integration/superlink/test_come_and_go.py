"""A site that comes late, and one that is restarted, over a SuperLink."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.run_dir import RunDir

pytestmark = [pytest.mark.slow, pytest.mark.flower, pytest.mark.timeout(1800)]
Private = Callable[[Path], Path]


def test_a_site_joins_a_run_under_way_and_is_taken_back_after_a_restart(
    lab: Any, private: Private, tiny: Any, wait_until: Callable[..., None], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    settings = "sites.count=3 stage.rounds=60 stream.arrival.west.joins=2"
    number, _ = lab.submit(stream=False, scenario=str(private(tmp_path / "s.toml")), out=str(out), set=settings)

    def last_round() -> int:
        """In which the new site took part."""
        rows = RunDir.open(out).rows() if (out / "metrics.jsonl").exists() else []
        found = (row["round"] for row in rows if row["metric"] == "update_norm" and row["site"] == "west")
        return max(found, default=0)

    def took_part(after: int) -> int:
        wait_until(lambda: last_round() > after, lab.folder, tmp_path)
        return last_round()

    node = lab.connect("west", tiny)
    first = took_part(0)
    os.killpg(node.pid, signal.SIGTERM)
    node.wait(timeout=120)
    node = lab.connect("west", tiny)
    try:
        assert took_part(first) > first >= 2
    finally:
        lab.flwr("stop", number, "lab")
        os.killpg(node.pid, signal.SIGTERM)
        node.wait(timeout=120)
