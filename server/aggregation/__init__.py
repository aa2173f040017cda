"""The table of aggregation rules; a new rule is one file and one line here."""

from __future__ import annotations

from server.aggregation.fedit import FedIt
from server.aggregation.ffa import Ffa
from server.aggregation.rule import Rule

RULES: dict[str, Rule] = {rule.name: rule for rule in (Ffa(), FedIt())}
"""Name in the configuration -> rule. ``ffa`` is the default: exact, and linear in what a site sends."""
