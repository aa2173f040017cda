"""Whether a base was ever trained: one that was drawn at random is no base for a private run."""

from __future__ import annotations

from pathlib import Path

from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.base_model import locate
from llmchain_fl.core.errors import ConfigError

MARK = "drawn.json"
"""Beside the weights: that they were drawn and never trained, and by which seed. An export does not have it."""


def check_scratch(config: RunConfig) -> None:
    """Refuse privacy over weights that were never trained.

    Raises:
        ConfigError: the base is one that ``llmchain-fl new-base`` made, and nobody has trained it.
    """
    if config.privacy.enabled and (Path(locate(config.model.path).path) / MARK).is_file():
        raise ConfigError(
            [
                f"model.path = {config.model.path}: its weights were drawn at random and never trained; under noise no "
                "language is learned from scratch. Train it on public texts with privacy.enabled = false first, and "
                "export it (docs/pre-training.md)"
            ]
        )
