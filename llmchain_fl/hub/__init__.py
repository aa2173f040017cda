"""Adapters as signed, content-addressed folders: published, pulled, verified, taken back.

``verified(folder, trust)`` is the only way by which an adapter that somebody published is loaded. Each name is imported
when it is used: keys and indexes need no torch.
"""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmchain_fl.hub.door import VerifiedAdapter as VerifiedAdapter
    from llmchain_fl.hub.door import verified as verified
    from llmchain_fl.hub.refused import HubError as HubError
    from llmchain_fl.hub.trust import Trust as Trust
    from llmchain_fl.hub.trust import read_trust as read_trust

_PLACES = MappingProxyType(
    {
        "HubError": "llmchain_fl.hub.refused",
        "Trust": "llmchain_fl.hub.trust",
        "read_trust": "llmchain_fl.hub.trust",
        "VerifiedAdapter": "llmchain_fl.hub.door",
        "verified": "llmchain_fl.hub.door",
    }
)


def __getattr__(name: str) -> object:
    """What the hub offers, imported when it is asked for."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
