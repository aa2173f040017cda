"""Settings that do not go with the guards that act at a site; light, so that a configuration can be read fast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

MOVES_A = ("fedit", "rolora", "hetlora")
"""Rules under which sites train an A that stays what it is from round to round, and which leave the fold alone."""
_FROZEN = "never trains A"
_OWNS_FOLD = "keeps what earlier rounds have left in the fold itself"
WHY_NOT: Mapping[str, str] = MappingProxyType(
    {
        "ffa": _FROZEN,
        "fedsvd": _FROZEN,
        "fedsb": _FROZEN,
        "fedex": _OWNS_FOLD,
        "flora": _OWNS_FOLD,
        "flexlora": "makes a new A out of the product in every round",
        "fedsa": "keeps B at each site, so the server holds no pair of a stage",
    }
)
_MIXERS = ("ema", "merge", "slots")
HOLD_ON = ("agem", "anchor", "distill", "olora", "replay")
"""Guards that hold on to a stage that is left behind."""


def site_guard_faults(
    rule: str, guards: Sequence[str], public: bool, settings: Mapping[str, float | str], play: str = "sequence"
) -> list[str]:
    """What is wrong, one line each; empty without these guards.

    Args:
        rule: ``aggregation.rule``.
        guards: ``continual.guards`` in their order.
        public: whether ``continual.public`` names records.
        settings: ``continual.*`` by name.
        play: ``stream.play``.

    | configuration | fault |
    |---|---|
    | ``olora`` and a rule that is not in ``MOVES_A``; an unknown rule | yes |
    | ``olora`` and ``ema``, ``merge`` or ``slots`` | yes |
    | ``anchor`` or ``distill`` and ``fedsa``: there is no common product | yes |
    | ``agem``, ``replay_data``, ``distill_data`` or ``anchor_importance = "public"`` without public records | yes |
    | ``anchor`` before a guard that changes what a stage starts from | yes |
    | a strength of 0 | yes: the guard would do nothing |
    | any of them and ``stream.play`` other than ``sequence``: no stage is left behind | yes |
    """
    faults = []
    if "olora" in guards and rule not in MOVES_A:
        why = WHY_NOT.get(rule, "is not known to train A and leave the fold alone")
        faults.append(f'guard "olora": aggregation.rule = "{rule}" {why}; choose one of {", ".join(MOVES_A)}')
    if "olora" in guards:
        faults += [f'guard "olora" and guard "{other}" exclude each other' for other in _MIXERS if other in guards]
    if play != "sequence":
        told = f'holds on to the stage before: stream.play = "{play}" leaves none behind'
        faults += [f'guard "{name}" {told}' for name in HOLD_ON if name in guards]
    if rule == "fedsa":
        told = 'aggregation.rule = "fedsa" keeps B at each site: there is no Delta W that all share'
        faults += [f'guard "{name}": {told}' for name in ("anchor", "distill") if name in guards]
    if not public:
        faults += [f"{what} needs continual.public" for what in _needs_public(guards, settings)]
    if "anchor" in guards:
        later = [name for name in guards[list(guards).index("anchor") :] if name in ("ema", "merge")]
        faults += [f'guard "{name}" must come before "anchor": it changes what a stage starts from' for name in later]
    return faults + _idle(guards, settings)


def _idle(guards: Sequence[str], settings: Mapping[str, float | str]) -> list[str]:
    names = ("distill_weight", "anchor_strength", "olora_strength", "agem_strength", "replay_weight")
    found = [(name, name.partition("_")[0]) for name in names if settings.get(name) == 0]
    return [f"continual.{name} = 0 makes the guard `{guard}` do nothing" for name, guard in found if guard in guards]


def _needs_public(guards: Sequence[str], settings: Mapping[str, float | str]) -> list[str]:
    asked = {
        'guard "agem"': "agem" in guards,
        'continual.replay_data = "public"': "replay" in guards and settings.get("replay_data") == "public",
        'continual.distill_data = "public"': "distill" in guards and settings.get("distill_data") == "public",
        'continual.anchor_importance = "public"': "anchor" in guards and settings.get("anchor_importance") == "public",
    }
    return [what for what, wanted in asked.items() if wanted]
