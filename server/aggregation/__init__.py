"""The table of aggregation rules; a new rule is one file and one line here."""

from __future__ import annotations

from server.aggregation.fedex import FedEx
from server.aggregation.fedit import FedIt
from server.aggregation.fedsa import FedSa
from server.aggregation.fedsb import FedSb
from server.aggregation.fedsvd import FedSvd
from server.aggregation.ffa import Ffa
from server.aggregation.flexlora import FlexLora
from server.aggregation.flora import Flora
from server.aggregation.hetlora import HetLora
from server.aggregation.rolora import RoLora
from server.aggregation.rule import Rule

RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Ffa(), FedIt(), RoLora(), FedSvd(), FedEx(), Flora(), FlexLora(), HetLora(), FedSb(), FedSa()
    )
}  # fmt: skip
"""Name in the configuration -> rule. ``ffa`` is the default: exact, and linear in what a site sends."""
