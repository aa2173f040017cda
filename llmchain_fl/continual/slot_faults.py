"""Settings that do not go with the guards ``slots`` and ``route``; light, so that a configuration can be read fast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

FITS = ("ffa", "fedit", "rolora", "hetlora")
"""Rules under which a slot's pair keeps its coordinates, and which leave the fold alone."""
_OWNS_FOLD = "keeps what earlier rounds have left in the fold itself, so that no block of it is a slot"
_TURNS = "makes a new A out of the product in every round, so that it does not stay where the slot was drawn"
WHY_NOT: Mapping[str, str] = MappingProxyType(
    {
        "fedex": _OWNS_FOLD,
        "flora": _OWNS_FOLD,
        "fedsvd": _TURNS,
        "flexlora": _TURNS,
        "fedsb": "trains a core between two factors that it draws itself",
        "fedsa": "keeps B at each site, so the server holds no slot",
    }
)
_CLASHES = ("ema", "merge")
"""Guards that mix the adapters of two stages factor by factor, or into one pair: there are no slots after that."""


def slot_faults(rule: str, guards: Sequence[str], share: float, public: bool, play: str = "sequence") -> list[str]:
    """What is wrong, one line each; empty without these guards.

    Args:
        rule: ``aggregation.rule``.
        guards: ``continual.guards`` in their order.
        share: ``continual.slots_share``.
        public: whether ``continual.public`` names records.
        play: ``stream.play``.

    | configuration | fault |
    |---|---|
    | neither guard | none |
    | ``slots`` and a rule that is not in ``FITS``; an unknown rule | yes |
    | ``slots`` and ``ema`` or ``merge`` | yes |
    | ``slots`` and ``stream.play`` other than ``sequence`` | yes |
    | ``slots`` with a share above 0, or ``route``, without public records | yes |
    | ``route`` without ``slots`` before it | yes |
    """
    faults = []
    if "slots" in guards:
        if rule not in FITS:
            why = WHY_NOT.get(rule, "is not known to leave the fold and the place of A alone")
            faults.append(f'guard "slots": aggregation.rule = "{rule}" {why}; choose one of {", ".join(FITS)}')
        faults += [f'guard "slots" and guard "{other}" exclude each other' for other in _CLASHES if other in guards]
        if play != "sequence":
            faults.append(f'guard "slots" needs one stage after the other: stream.play = "{play}" has none')
        if share > 0 and not public:
            faults.append(
                'guard "slots" protects inputs of public records: set continual.public, or continual.slots_share = 0'
            )
    if "route" in guards:
        if "slots" not in guards or guards.index("slots") > guards.index("route"):
            faults.append('guard "route" chooses among slots: put "slots" before it in continual.guards')
        if not public:
            faults.append('guard "route" knows a stage by public records: set continual.public')
    return faults
