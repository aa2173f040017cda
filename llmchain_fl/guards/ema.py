"""``ema``: serve a moving average of the global adapter, and go on from it at the end of a stage.

    S_0 = start;   S_t = decay * S_{t-1} + (1 - decay) * G_t;   at a stage's end G <- S.

The weight averaging of WiSE-FT (Wortsman et al. 2022) over rounds, at the server: post-processing of released
aggregates, no epsilon, no cost at a site. Averaged factor by factor: exact in the product when A is common (``ffa``);
otherwise off by the covariance of A and B between the two adapters.

In the first stage there is nothing to protect, so S follows G (S_t = G_t) until the first stage has ended.

====================  ===========================
case                  result
====================  ===========================
first stage           S = G
decay = 0             S = G always
G constant            S -> G
====================  ===========================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from llmchain_fl.continual.merge import lerp
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.guards.site_guard import Settings
from llmchain_fl.guards.guard import Guard, GuardSettings
from llmchain_fl.guards.needs import steady_factors
from llmchain_fl.guards.protocol import ServerGuard, View


class EmaServer(ServerGuard):
    """Holds S. There is no site half."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._decay = float(settings["decay"])
        self._average: Arrays = {}

    def serve(self, view: View, serving: Arrays) -> Arrays:
        """S_t; in the first stage G_t."""
        if not self._average:
            return serving
        self._average = lerp(self._average, serving, 1.0 - self._decay)
        return dict(self._average)

    def on_stage_end(self, view: View, current: Arrays, serving: Arrays) -> Arrays:
        """G <- S."""
        self._average = dict(serving)
        return dict(serving)

    def state(self) -> Arrays:
        """S."""
        return dict(self._average)

    def load_state(self, state: Mapping[str, Any]) -> None:
        """S."""
        self._average = dict(state)


class EmaSettings(GuardSettings):
    """Serves a moving average of the global adapter."""

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.7
    """Share of the old average kept at each round."""


GUARD = Guard(
    "ema",
    EmaSettings,
    EmaServer,
    needs=(steady_factors("averages LoRA factors"),),
    serves_another=True,
    mixes=True,
)
