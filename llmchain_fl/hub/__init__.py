"""Adapters as signed, content-addressed folders: published, pulled, verified, taken back.

``verified(folder, trust)`` is the only way by which an adapter that somebody published is loaded.
"""

from llmchain_fl.hub.refused import HubError
from llmchain_fl.hub.trust import Trust, read_trust
from llmchain_fl.hub.verified import VerifiedAdapter, verified

__all__ = ["HubError", "Trust", "VerifiedAdapter", "read_trust", "verified"]
