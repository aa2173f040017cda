"""What guards ask of an aggregation rule, each with its reason in words."""

from __future__ import annotations

from llmchain_fl.aggregation.rule import CORE, LORA_A, Rule
from llmchain_fl.guards.guard import Need

NO_PAIR = "moves no pair of factors under this adapter.variant, so that there is no Delta W = B A"


def steady_factors(does: str) -> Need:
    """Factors keep their coordinates from round to round."""
    return Need(does, lambda rule: f"{rule.unsteady}, so they cannot be averaged" if rule.unsteady else "")


def one_adapter(does: str) -> Need:
    """There is one adapter that all share."""
    return Need(does, lambda rule: f"{_owned(rule)}, so there is no Delta W that all share" if rule.owns else "")


def one_product(does: str) -> Need:
    """It is a pair of factors."""
    shared = one_adapter(does)
    return Need(does, lambda rule: shared.lacks(rule) if rule.factors else NO_PAIR)


def pair_of_its_own(does: str) -> Need:
    """A stage's pair can be frozen: one for all, in its coordinates, in a fold that nobody else writes."""
    return Need(does, _no_pair)


def trained_a(does: str) -> Need:
    """Sites train A."""
    return Need(does, lambda rule: "" if LORA_A in rule.trained else "never trains A")


def _owned(rule: Rule) -> str:
    return f"keeps {' and '.join(rule.owns)} at each site"


def _no_pair(rule: Rule) -> str:
    """

    | rule | what it does instead |
    |---|---|
    | trains a core between fixed factors | the pair is none of a stage |
    | leaves a factor at each site | the server holds no pair |
    | writes the fold itself | no block of it is a stage's |
    | makes new factors of the product | A does not stay where it was drawn |
    | moves arrays of a variant without a product | there is no pair |
    """
    if not rule.factors:
        return NO_PAIR
    if CORE in rule.trained:
        return "trains a core between two factors that it draws itself"
    if rule.owns:
        return f"{_owned(rule)}, so the server holds no pair of a stage"
    if rule.folds:
        return "keeps what earlier rounds have left in the fold itself, so that no block of it is of one stage"
    return f"{rule.unsteady}, so that A does not stay where it was drawn" if rule.unsteady else ""
