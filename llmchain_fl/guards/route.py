"""``route``: among the slots, answer each text by those of the stages it is like; for tasks that conflict.

The sum of slots has one answer for a text. Where two stages want different ones (the same words, other labels), only a
choice can serve both. How a text chooses: ``llmchain_fl/core/adapter/routing.py``. What it chooses by::

    c   = mean over stages of the mean feature of a stage's public records
    k_i = unit( mean over public records x of stage i of unit( f(x) - c ) )            features f: routing.py

Keys of the stages so far and of the present one; the present stage is trained with its gate on, so that a site trains
what is served. When a stage ends the next one's key comes to the others, and c moves.

Public records and the public base: no epsilon. Keys from private records would have to be paid for (docs/privacy.md).

Where we differ from DISCO (arXiv 2503.12897): keys come from the server's public records, not from each site's own; no
threshold decides at a site which slot it trains, the run's calendar does; features are centred.

==================================  ===================================================================
case                                result
==================================  ===================================================================
the first stage                     no table: the plain adapter, bit for bit
the last stage has ended            the table stays
stages with the same public texts   keys alike: every gate is 1 / K, the mean of the slots
public records without a stage      ConfigError in the first round: nothing tells stages apart
no guard that marks pairs before it  refused at start
==================================  ===================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from llmchain_fl.core.adapter.routing import FOLD, PAIR
from llmchain_fl.core.adapter.value import CENTRE, KEYS, TAU, Arrays
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.guards.site_guard import Settings
from llmchain_fl.core.tasks.base import Examples, Task
from llmchain_fl.guards.guard import Guard, GuardSettings, Records
from llmchain_fl.guards.protocol import ServerGuard, View
from llmchain_fl.guards.slots import check_public, public_of

BATCH = 64


class RouteServer(ServerGuard):
    """Holds the table from the end of the first stage on. Sites take it up with the arrays; there is no site half."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._tau = float(settings["tau"])
        self._table: Arrays = {}

    def payload(self) -> Arrays:
        """The table, for a site's model."""
        return dict(self._table)

    def step(self, view: View, current: Arrays) -> Arrays:
        """As it is.

        Raises:
            ConfigError: no public record names its stage.
            DataError: there is no public record of some stage.
        """
        if view.stage == 0 and len(view.stages) > 1:
            if not any("stage" in row for row in view.public_rows):
                raise ConfigError(['guard "route": the records of continual.public need a column "stage"'])
            check_public(view, len(view.stages))
        return current

    def serve(self, view: View, serving: Arrays) -> Arrays:
        """With the table beside it.

        Raises:
            ConfigError: there are no slots to choose among.
        """
        if PAIR not in serving:
            raise ConfigError(['guard "route" chooses among frozen pairs: put a guard that marks them before it'])
        return {**serving, **{name: value for name, value in self._table.items() if name not in (FOLD, PAIR)}}

    def on_stage_end(self, view: View, current: Arrays, serving: Arrays) -> Arrays:
        """The next stage's key; the pair that was trained is a block of the fold now."""
        following = view.stage + 1
        if following < len(view.stages) and view.public is not None:
            groups = [view.public.rows_of(public_of(view, stage)).tolist() for stage in range(following + 1)]
            keys, centre = keys_of(view.task, view.public, groups)
            pair = serving[PAIR]
            self._table = {
                KEYS: keys,
                CENTRE: centre,
                TAU: np.full(1, self._tau, np.float32),
                FOLD: np.concatenate([serving.get(FOLD, pair[:0]), pair]),
                PAIR: np.full_like(pair, following + 1),
            }
        return current

    def state(self) -> Arrays:
        """The table."""
        return dict(self._table)

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The table."""
        self._table = dict(state)


def keys_of(task: Task, examples: Examples, groups: Sequence[Sequence[int]]) -> tuple[Any, Any]:
    """(k, K x H unit rows; c, H), float32, of groups of records; see the head of this file.

    The adapter does not matter: features are taken below it.

    | case | result |
    |---|---|
    | one group | a key that no text is near or far from by itself; with one key a = 1 anyway |
    | two groups of the same records | the same key twice |
    | a group whose features cancel out | a zero key, cosine 0 with every text |
    """
    features = [_features(task, examples, group) for group in groups]
    centre = torch.stack([group.mean(dim=0) for group in features]).mean(dim=0)
    unit = torch.nn.functional.normalize
    keys = torch.stack([unit(unit(group - centre, dim=-1).mean(dim=0), dim=0) for group in features])
    return keys.float().cpu().numpy(), centre.float().cpu().numpy()


def _features(task: Task, examples: Examples, group: Sequence[int]) -> torch.Tensor:
    """f of these records, float64 [n, H]."""
    order = sorted(group, key=examples.length)
    with task.resident.router.listening() as seen, torch.no_grad():
        for start in range(0, len(order), BATCH):
            task.forward(examples, order[start : start + BATCH])
    return torch.cat(seen).double()


class RouteSettings(GuardSettings):
    """Answers each text by the frozen pairs of the stages it is like."""

    tau: Annotated[float, Field(ge=1e-4, le=10)] = 0.05
    """Temperature of the choice; small is a hard choice."""

    @property
    def records(self) -> Records:
        """They tell what a stage is like."""
        return "public by stage"


GUARD = Guard("route", RouteSettings, RouteServer, chooses_pairs=True)
