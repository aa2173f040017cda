"""Streams that are made up."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def _stream(rates: Sequence[float], window: int, seed: int = 1, **more: str) -> list[dict[str, str]]:
    """Entries with labels, one rate a window."""
    draw = np.random.default_rng(seed)
    return [
        {"text": "words", "label": "bad" if draw.random() < rate else "good", **more}
        for rate in rates
        for _ in range(window)
    ]


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Puts entries and a monitor's file into a folder; gives the latter."""

    def write(entries: Sequence[Any], text: str) -> Path:
        lines = [one if isinstance(one, str) else json.dumps(one) for one in entries]
        (tmp_path / "stream.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        file = tmp_path / "monitor.toml"
        file.write_text(f'stream = "stream.jsonl"\nwatch = ["bad"]\n{text}', encoding="utf-8")
        return file

    return write


@pytest.fixture
def stream() -> Callable[..., list[dict[str, str]]]:
    """Made-up entries: rates, one a window; its texts; a seed; further columns."""
    return _stream
