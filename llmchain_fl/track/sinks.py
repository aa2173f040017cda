"""Where measurements can be copied to: a class each, in one table. Each package is imported when its class is opened.

Nothing leaves this machine unless ``online`` is asked for.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

Settings = Mapping[str, str | int | float | bool]


class Sink(Protocol):
    """One tracker."""

    def __init__(self, name: str, place: Path, settings: Settings, *, online: bool) -> None:
        """Begin a run called ``name``; what stays on this machine goes into the folder ``place``."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """The values of one round."""

    def close(self) -> None:
        """End the run."""


class Wandb:
    """Weights & Biases; offline: ``place/wandb``, for ``wandb sync``."""

    def __init__(self, name: str, place: Path, settings: Settings, *, online: bool) -> None:
        wandb: Any = importlib.import_module("wandb")
        mode = "online" if online else "offline"
        self._run: Any = wandb.init(
            project="llmchain-fl", name=name, dir=str(place), config=dict(settings), mode=mode,
            settings=wandb.Settings(silent=True, disable_git=True, x_disable_stats=True, x_disable_meta=True),
        )  # fmt: skip

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """The values of one round."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """End the run."""
        self._run.finish()


class Mlflow:
    """MLflow; offline: ``place/mlflow.db``; online: the server that ``MLFLOW_TRACKING_URI`` names."""

    def __init__(self, name: str, place: Path, settings: Settings, *, online: bool) -> None:
        self._mlflow: Any = importlib.import_module("mlflow")
        if not online:
            self._mlflow.set_tracking_uri(f"sqlite:///{place.resolve() / 'mlflow.db'}")
        self._mlflow.set_experiment("llmchain-fl")
        self._mlflow.start_run(run_name=name, log_system_metrics=False)
        self._mlflow.log_params(dict(settings))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """The values of one round."""
        self._mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
        """End the run."""
        self._mlflow.end_run()


class Trackio:
    """trackio; offline: ``place/trackio``; online: the space that ``TRACKIO_SPACE_ID`` names."""

    def __init__(self, name: str, place: Path, settings: Settings, *, online: bool) -> None:
        if not online:
            os.environ["TRACKIO_DIR"] = str(place / "trackio")
        self._trackio: Any = importlib.import_module("trackio")
        space = os.environ.get("TRACKIO_SPACE_ID") if online else None
        self._trackio.init(project="llmchain-fl", name=name, config=dict(settings), space_id=space)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """The values of one round."""
        self._trackio.log(dict(values), step=step)

    def close(self) -> None:
        """End the run."""
        self._trackio.finish()


SINKS: Mapping[str, type[Sink]] = MappingProxyType({"wandb": Wandb, "mlflow": Mlflow, "trackio": Trackio})
"""Name, which is also the extra -> the class."""
