"""``rehearsal`` at a site: the records of a round are also kept ones of earlier stages (``client/rehearsal.py``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from llmchain_fl.core.guards.site_guard import Settings, SiteGuard
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.ranges import Bound, Range


class RehearsalSite(SiteGuard):
    """Nothing in the step itself: whose records are drawn is decided before it."""

    bounds: ClassVar[Mapping[str, Bound]] = {"keep": Range(0, 1, above=True)}

    @classmethod
    def funded(cls, plan: PrivacyPlan) -> bool:
        """Records of earlier stages are read again: the plan must charge their groups."""
        return plan.rehearsal != "none"

    @classmethod
    def rehearsed(cls, settings: Settings) -> float:
        """``keep``."""
        return float(settings["keep"])
