"""The table of aggregation rules; a new rule is one file and one line here."""

from __future__ import annotations

from llmchain_fl.aggregation.fedex import FedEx
from llmchain_fl.aggregation.fedit import FedIt
from llmchain_fl.aggregation.fedsa import FedSa
from llmchain_fl.aggregation.fedsb import FedSb
from llmchain_fl.aggregation.fedsvd import FedSvd
from llmchain_fl.aggregation.ffa import Ffa
from llmchain_fl.aggregation.flexlora import FlexLora
from llmchain_fl.aggregation.flora import Flora
from llmchain_fl.aggregation.hetlora import HetLora
from llmchain_fl.aggregation.rolora import RoLora
from llmchain_fl.aggregation.rule import Rule

RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Ffa(), FedIt(), RoLora(), FedSvd(), FedEx(), Flora(), FlexLora(), HetLora(), FedSb(), FedSa()
    )
}  # fmt: skip
"""Name in the configuration -> rule. ``ffa`` is the default: exact, and linear in what a site sends."""
