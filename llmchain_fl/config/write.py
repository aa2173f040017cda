"""``RunConfig`` -> TOML text, so that a run directory says in full what was run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tomli_w

from llmchain_fl.config.schema import RunConfig


def to_toml(config: RunConfig) -> str:
    """The resolved configuration, every setting with its value; ``read_config`` reads it back to an equal value."""
    return tomli_w.dumps(config.model_dump())


def table_to_toml(tree: Mapping[str, Any]) -> str:
    """A mapping as TOML."""
    return tomli_w.dumps(tree)
