"""The table of aggregation rules; a new rule is one file and one line here, or an entry point of another package."""

from __future__ import annotations

from llmchain_fl.aggregation.rule import Rule
from llmchain_fl.registry import Table

_HERE = "llmchain_fl.aggregation"
RULES: Table[Rule] = Table(
    "rules",
    {
        "ffa": f"{_HERE}.ffa:Ffa",
        "fedit": f"{_HERE}.fedit:FedIt",
        "rolora": f"{_HERE}.rolora:RoLora",
        "fedsvd": f"{_HERE}.fedsvd:FedSvd",
        "fedex": f"{_HERE}.fedex:FedEx",
        "flora": f"{_HERE}.flora:Flora",
        "flexlora": f"{_HERE}.flexlora:FlexLora",
        "hetlora": f"{_HERE}.hetlora:HetLora",
        "fedsb": f"{_HERE}.fedsb:FedSb",
        "fedsa": f"{_HERE}.fedsa:FedSa",
    },
    Rule,
)
"""Name in the configuration -> rule."""
DEFAULT = "ffa"
"""Exact, and linear in what a site sends."""
