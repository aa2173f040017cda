"""Settings that do not go with the guards ``merge`` and ``gate``; light, so that a configuration can be read fast."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

KEEPS_COORDINATES = ("ffa", "fedsb")
"""Rules under which one factor is trained and the others are common: a mixture leaves the coordinates alone."""
_SHARED = "keeps B at each site: there is no Delta W that all share"


def merge_faults(
    rule: str, optimizer: str, guards: Sequence[str], settings: Mapping[str, float | str], play: str = "sequence"
) -> list[str]:
    """What is wrong with ``merge`` and ``gate`` under a rule, one line each; empty without these guards.

    Args:
        rule: ``aggregation.rule``.
        optimizer: ``aggregation.optimizer``.
        guards: ``continual.guards`` in their order.
        settings: ``continual.*`` by name.
        play: ``stream.play``.

    | configuration | fault |
    |---|---|
    | ``merge`` or ``gate`` and ``fedsa`` | yes |
    | ``merge`` or ``gate``, a server optimizer, and a rule that is not in ``KEEPS_COORDINATES`` | yes |
    | ``merge_kind = "ties"`` and ``fedsb``: entries of the product are no entries of a core | yes |
    | ``wise`` or ``ties`` with ``merge_beta`` 0 (no stage is learnt) or 1 (nothing is merged) | yes |
    | ``merge`` and ``stream.play = "joint"``: no stage ends | yes |
    """
    faults = []
    for name in ("merge", "gate"):
        if name in guards and rule == "fedsa":
            faults.append(f'guard "{name}": aggregation.rule = "fedsa" {_SHARED}')
        if name in guards and optimizer != "none" and rule not in KEEPS_COORDINATES:
            faults.append(
                f'guard "{name}" turns the factors, and aggregation.optimizer = "{optimizer}" steps along them; '
                f"choose one of the two, or a rule of {', '.join(KEEPS_COORDINATES)}"
            )
    if "merge" in guards:
        kind, beta = settings.get("merge_kind"), settings.get("merge_beta")
        if kind == "ties" and rule == "fedsb":
            faults.append('continual.merge_kind = "ties" needs factors, and aggregation.rule = "fedsb" trains a core')
        if kind in ("wise", "ties") and beta in (0, 1):
            does = "keeps the first stage for good" if beta == 0 else "makes the guard `merge` do nothing"
            faults.append(f"continual.merge_beta = {beta:g} {does}")
        if play == "joint":
            faults.append('guard "merge" acts at the end of a stage: stream.play = "joint" has none')
    return faults


def gate_faults(
    stages: Sequence[str], probed: Collection[str], *, kept_apart: bool, play: str = "sequence"
) -> list[str]:
    """What stands in the way of the guard ``gate``, one line each; a run must not start with any.

    Args:
        stages: names of all stages.
        probed: the stages for which there are public records to probe.
        kept_apart: whether these records are others than those that the run is judged on.
        play: ``stream.play``.

    | case | fault |
    |---|---|
    | a stage that is not probed | yes, one for each |
    | the test set is the probe | yes: what is chosen by it is no estimate any more |
    | ``stream.play`` other than ``sequence`` | yes: there is no earlier stage to keep |
    """
    faults = [
        f'guard "gate" has no public records for stage "{name}" to probe: give data.dev records of every stage'
        for name in stages
        if name not in probed
    ]
    if play != "sequence":
        faults.append(f'guard "gate" keeps earlier stages: stream.play = "{play}" has none')
    if not kept_apart:
        faults.append('guard "gate" would choose by the test set: set data.dev to public records kept apart from it')
    return faults
