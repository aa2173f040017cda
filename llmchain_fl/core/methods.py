"""How a round learns: ``train.method``."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

LOCAL, LOCKSTEP, CLOSED_FORM = "local", "lockstep", "closed-form"
METHODS: Mapping[str, str] = MappingProxyType(
    {
        LOCAL: "sites take `steps` steps of their own, the server averages what came of them",
        LOCKSTEP: "sites send a gradient, the server takes the one step of the round",
        CLOSED_FORM: "sites send sums from which the server computes the head, once a stage",
    }
)
