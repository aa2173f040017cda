"""llmchain_fl: federated, private and continual LoRA fine-tuning of language models, on Flower.

From Python (docs/python.md)::

    import llmchain_fl as lf

    result = lf.run("demo", train={"north": records, "south": frame}, test=public)
    result.predict(["my card is gone"])

Nothing is imported before it is used: ``import llmchain_fl`` loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmchain_fl.api.classifier import Classifier as Classifier
    from llmchain_fl.api.result import Result as Result
    from llmchain_fl.api.run import load as load
    from llmchain_fl.api.run import resume as resume
    from llmchain_fl.api.run import run as run

__version__ = "0.10.0"

_PLACES = MappingProxyType(
    {
        "Classifier": "llmchain_fl.api.classifier",
        "Result": "llmchain_fl.api.result",
        "load": "llmchain_fl.api.run",
        "resume": "llmchain_fl.api.run",
        "run": "llmchain_fl.api.run",
    }
)


def __getattr__(name: str) -> object:
    """What the interface offers, imported when it is asked for."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
