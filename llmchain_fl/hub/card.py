"""The card of an adapter: one value, of which ``card.json`` and ``README.md`` are two spellings.

Every number is a :class:`Number`: it names the file of the hub folder that it comes from, and where in it. The card is
a function of those files (``card_build.py``), so that whoever has the folder can make it again and compare.
"""

from __future__ import annotations

import json
from typing import Any

import pydantic

from llmchain_fl.atomic_file import finite
from llmchain_fl.hub.layout import BOUNDS, CARD
from llmchain_fl.hub.refused import refuse
from llmchain_fl.hub.strict_json import parse_object

FORMAT = 1


class _Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Number(_Part):
    """A number, the file that it comes from, and where in it. ``value`` None: it was not measured."""

    value: float | int | None
    source: str
    at: str = ""


class Base(_Part):
    """The frozen model beneath."""

    name: str
    digest: str
    licence: str


class Task(_Part):
    """What the adapter is for; ``labels``: names in the order of the label space."""

    kind: str
    head: str
    labels: list[str]
    max_tokens: Number


class Variant(_Part):
    """What is trained of the base."""

    kind: str
    rank: Number
    alpha: Number
    targets: list[str]
    last_layers: Number
    parameters: Number


class Training(_Part):
    """How it was trained."""

    rule: str
    method: str
    guards: list[str]
    sites: Number
    rounds: Number
    stages: list[str]
    variant: Variant


class Privacy(_Part):
    """What is promised, to whom, and what is not. All empty where ``private`` is False."""

    private: bool
    promise: str
    epsilon: Number | None = None
    epsilon_rdp: Number | None = None
    delta: Number | None = None
    unit: str = ""
    adjacency: str = ""
    accountant: str = ""
    composition: str = ""
    noise: str = ""
    trusts: str = ""
    not_covered: list[str] = []


class Score(_Part):
    """One score of the served adapter on public records, at the end, with its 95 % interval."""

    task: str
    metric: str
    better: str
    value: Number
    half_width: Number
    records: Number


class Stream(_Part):
    """Scores after each stage on each task, and what was kept (``continual/metrics.py``)."""

    tasks: list[str]
    r_matrix: list[list[Number]]
    summary: dict[str, Number]


class Audit(_Part):
    """The coordinator's log, by which the run can be held to account, and the gate that was passed before a release."""

    lines: Number | None = None
    head: str = ""
    gate_passed: Number | None = None
    gate_failed: Number | None = None


class Lineage(_Part):
    """Where it comes from. ``parent``: address of the version before; ``content``: digest of the arrays."""

    content: str
    parent: str
    run: str
    round: Number
    stage: str


class Card(_Part):
    """Everything."""

    format: int = FORMAT
    name: str
    version: int
    made_by: str
    licence: str
    languages: list[str]
    data: str
    intended_use: str
    refused_use: str
    base: Base
    task: Task
    training: Training
    privacy: Privacy
    stream: Stream
    evaluation: list[Score]
    suite: dict[str, Number] = {}
    """Of ``evaluate --suite``: place in its file -> number; empty: not played."""
    audit: Audit
    lineage: Lineage

    def to_bytes(self) -> bytes:
        """``card.json``."""
        return (json.dumps(finite(self.model_dump(mode="json")), indent=1, allow_nan=False) + "\n").encode()


def read_card(data: bytes) -> Card:
    """What ``to_bytes`` gave.

    Raises:
        HubError: form, size: it is no card; card: it is one of another format.
    """
    tree: dict[str, Any] = parse_object(data, CARD, BOUNDS[CARD])
    if tree.get("format") != FORMAT:
        raise refuse("card", f"card.json has the format {tree.get('format')!r}, not {FORMAT}")
    try:
        return Card.model_validate(tree)
    except pydantic.ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
    raise refuse("card", f"card.json lacks or adds something at {place}")
