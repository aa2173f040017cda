"""A federation from its page to its runs: kits, TLS, keys, real processes, each owner in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.cli.apps import app_root


@pytest.fixture
def federated(
    tmp_path: Path, tiny: Any, kits: Any, only_the_bundle: Callable[[], dict[str, str]], free_port: Callable[[], int]
) -> Iterator[Callable[..., Any]]:
    """(page, name of a folder, sections of the scenario) -> a federation with both; ``{port}`` is filled in."""
    made: list[Any] = []

    def make(page: str, name: str, **sections: Any) -> Any:
        environment = only_the_bundle() | {"PYTHONPATH": str(app_root())}
        one = kits.Federation(tmp_path / name, environment, free_port())
        one.folder.mkdir()
        tiny.scenario(one.folder / "scenario.toml", **sections)
        (one.folder / "federation.toml").write_text(page.format(port=one.port))
        made.append(one)
        return one

    try:
        yield make
    finally:
        for one in made:
            one.stop()
