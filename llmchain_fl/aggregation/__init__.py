"""The table of aggregation rules; a new rule is one file and one line here, or an entry point of another package."""

from __future__ import annotations

from llmchain_fl.aggregation.rule import Rule
from llmchain_fl.registry import Table

RULES: Table[Rule] = Table(
    "rules",
    {
        "ffa": "llmchain_fl.aggregation.ffa:Ffa",
        "fedit": "llmchain_fl.aggregation.fedit:FedIt",
        "rolora": "llmchain_fl.aggregation.rolora:RoLora",
        "fedsvd": "llmchain_fl.aggregation.fedsvd:FedSvd",
        "fedex": "llmchain_fl.aggregation.fedex:FedEx",
        "flora": "llmchain_fl.aggregation.flora:Flora",
        "flexlora": "llmchain_fl.aggregation.flexlora:FlexLora",
        "hetlora": "llmchain_fl.aggregation.hetlora:HetLora",
        "fedsb": "llmchain_fl.aggregation.fedsb:FedSb",
        "fedsa": "llmchain_fl.aggregation.fedsa:FedSa",
        "head-only": "llmchain_fl.aggregation.head:Head",
    },
    Rule,
)
"""Name in the configuration -> rule."""
DEFAULT = "ffa"
"""Exact, and linear in what a site sends."""
PLAIN = "fedit"
"""What averages the arrays of a variant without a product."""
HEAD_ONLY = "head-only"
"""What a head in closed form goes with."""
