"""Which Flower the executors were tried with: they use names of its inside (``flower_runtime.py``)."""

from __future__ import annotations

import flwr

from llmchain_fl.core.errors import ConfigError

TRIED = ("1.41", "1.42")


def check_flower(version: str = flwr.__version__) -> None:
    """Refuse a Flower whose inside nobody has looked at.

    Raises:
        ConfigError: another minor version than those of ``TRIED``.
    """
    if ".".join(version.split(".")[:2]) not in TRIED:
        raise ConfigError(
            [f"Flower {version} is installed; the executors were tried with {' and '.join(TRIED)} alone"],
            remedy=f"pip install 'flwr=={TRIED[0]}.*', or start flower-supernode and flower-superexec by hand "
            "(docs/on-flower.md)",
        )
