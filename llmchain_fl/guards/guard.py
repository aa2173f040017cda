"""What a guard declares. Everything else asks these declarations, never a guard's name (``planning/compatible.py``).

A guard is one file with its settings, its half at the server, its half at the site, or both, and a :class:`Guard` that
names them; and one line in ``GUARDS``, or in another package an entry point of the group ``llmchain_fl.guards``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field
from pydantic.fields import FieldInfo

from llmchain_fl.aggregation.rule import Rule
from llmchain_fl.core.guards.site_guard import SiteGuard
from llmchain_fl.core.guards.spec import GuardSpec
from llmchain_fl.core.ranges import Bound, Range
from llmchain_fl.core.section import Section
from llmchain_fl.guards.protocol import ServerGuard

Claim = Literal["in-step", "post-processing", "charged"]
"""``in-step``: inside the clipped and noised loss. ``post-processing``: reads released values and public records only.
Both cost no epsilon. ``charged``: reads private records a second time, and the ledger is asked for it."""
Records = Literal["none", "public", "public with answers", "public by stage", "generated", "own"]
"""What a guard trains on or looks at beside a site's records of the round: nothing, ``continual.public`` (any text;
with labels where the task has some; of stages that can be told apart), texts that the served adapter writes, or a
site's own records of earlier stages, which are charged."""
Stages = Literal["any", "ended", "earlier"]
"""What it needs of the stream: nothing, stages that end, or earlier stages beside the present one."""


class GuardSettings(Section):
    """Settings of one guard, ``[continual.NAME]``, and what depends on them. Numbers and words only: they travel."""

    @property
    def claim(self) -> Claim:
        """What it costs."""
        return "post-processing"

    @property
    def records(self) -> Records:
        """Where the records come from that it uses."""
        return "none"

    def faults(self, rule: Rule) -> list[str]:
        """Settings that make no sense by themselves or under ``rule``, one line each."""
        return []

    def plain(self) -> dict[str, float | str]:
        """As they travel: by name, in the order of the names."""
        fields = {name: getattr(self, name) for name in sorted(type(self).model_fields)}
        return {name: value if isinstance(value, str) else float(value) for name, value in fields.items()}


@dataclass(frozen=True)
class Need:
    """What a guard asks of an aggregation rule.

    Attributes:
        does: what the guard does that needs it, such as "averages LoRA factors".
        lacks: rule -> what the rule does instead, such as "never trains A"; empty where it fits.
    """

    does: str
    lacks: Callable[[Rule], str]


@dataclass(frozen=True)
class Guard:
    """One guard.

    Attributes:
        name: in the configuration; its settings stand under ``continual.<name>``.
        settings: their type, bounds and defaults.
        server: its half at the server.
        site: its half at a site; None: nothing of it acts there, so nothing of it travels.
        needs: of the rule.
        stages: of the stream.
        serves_another: the served adapter is another than the one that sites go on training.
        mixes: what a stage starts from is a mixture of the adapters of several stages.
        new_pairs: the pair of a stage is frozen at its end and the next stage gets a new one.
        marks_pairs: the served adapter tells which frozen pair is of which stage.
        chooses_pairs: it chooses among frozen pairs that are so marked; a guard that marks them must come before it.
        holds_start: it holds on to what a stage starts from; guards that mix must come before it.
        refactors: it makes new factors of the adapter that sites train, so that no server optimizer can step along
            them, unless only one factor moves.
        teaches: it keeps outputs, so the head must be one that all share.
        asks_labels: it asks which labels are of which stage.
        probes: it decides by the scores of ``data.dev``.
        idle_at_zero: settings of which 0 makes it do nothing.
        notes: key of what its server half notes of a round -> what the number is, for the report.
    """

    name: str
    settings: type[GuardSettings] = GuardSettings
    server: type[ServerGuard] = ServerGuard
    site: type[SiteGuard] | None = None
    needs: tuple[Need, ...] = ()
    stages: Stages = "any"
    serves_another: bool = False
    mixes: bool = False
    new_pairs: bool = False
    marks_pairs: bool = False
    chooses_pairs: bool = False
    holds_start: bool = False
    refactors: bool = False
    teaches: bool = False
    asks_labels: bool = False
    probes: bool = False
    idle_at_zero: tuple[str, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def claim(self) -> Claim:
        """With its usual settings."""
        return self.settings().claim

    def given(self, spec: GuardSpec) -> GuardSettings:
        """The settings of ``spec``, unchecked; one that it leaves out has its usual value."""
        return self.settings.model_construct(None, **dict(spec.settings))


def within(bound: Bound) -> FieldInfo:
    """The bounds of a number that a site checks as well, for its field: ``Annotated[float, within(...)]``.

    Raises:
        TypeError: a list of words; name its ``Literal`` instead.
    """
    if not isinstance(bound, Range):
        raise TypeError("a bound of words")
    low, high = bound.low, bound.high
    field: FieldInfo = Field(
        gt=low if bound.above else None,
        ge=None if bound.above else low,
        lt=high if bound.below else None,
        le=None if bound.below else high,
    )
    return field
