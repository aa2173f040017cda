"""``mask``: each stage learns to tell its own labels apart, and leaves the other labels alone.

In a class-incremental stream most forgetting is the softmax: on every record it pushes the labels of all other stages
down. Here the loss of a record x with label y is over the labels S of the stage, and over E, those of the stages that
the round rehearses; both are public, z are the logits over the whole label list [L], w is ``others``:

    y in S       loss = -z_y + log( sum_{l in S} exp z_l + w sum_{other l} exp z_l )
    y in E \\ S   the same with S and E in place of S              (guard ``rehearsal`` alone hands such records out)
    else         loss = 0, with gradient 0

With w = 0 the gradient of every logit that is left out is exactly zero. Scores and predictions stay over all L.

Then, at the server, with a trained head W, b of L rows:   W_l, b_l <- those before the round,   for l in no stage that
some site was at. With w = 0 they moved by noise and momentum, or by what another guard added, which goes on acting on
the adapter and on the stage's own rows. Reads released arrays: post-processing.

Which w: with 0 the stage learns nothing about what tells its records from those of other stages; the rows of the
others stay in place as well, so it need not where all stages are alike (intents of one service). Where stages are
domains, each with records of its own kind, w = 1 keeps the difference, and the rows that are put back keep the rest
(docs/continual.md has both measured).

The masked loss is the "labels trick" (Zeno et al. 2018, arXiv 1803.10123), with E the asymmetric loss of ER-ACE (Caccia
et al. 2022, arXiv 2104.05025, section 4); in federated learning the restricted softmax of FedRS (Li & Zhan, KDD 2021).
Where we differ: they mask by the labels that a batch or a client holds, which would tell of records; here the labels of
a stage are a public setting, so what a record adds is a function of that record and of public constants.

======================================  ==============================================================
case                                    result
======================================  ==============================================================
the stage has every label, or w = 1     the plain loss of its records, bit for bit
a record of no label of S or E          adds exactly zero, whatever its logits are
a round with no other records           moves nothing without privacy, and noise with it
a stage of one label                    refused: between one label there is nothing to learn
a stage that names no labels            refused
a task without labels                   refused
stages that share labels                their rows move in each of these stages
``stream.blur``                         records that came from another stage add nothing
``play = "joint"``                      S = the labels of all stages
sites at different stages               each has the S of its own stage; rows of all these stages may move
a head of each site's own               nothing is put back: the server has no rows
label-text head                         nothing to put back
a void round                            nothing to put back
======================================  ==============================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np

from llmchain_fl.aggregation.rule import HEAD
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.guards.mask import MaskSite
from llmchain_fl.core.guards.site_guard import Settings
from llmchain_fl.guards.guard import Claim, Guard, GuardSettings, within
from llmchain_fl.guards.protocol import ServerGuard, View


class MaskServer(ServerGuard):
    """Puts the rows of a trained head back that no stage of the round teaches."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._notes: dict[str, float] = {}

    def step(self, view: View, current: Arrays) -> Arrays:
        """Rows of labels outside ``view.labels`` as before the round; the other arrays as they are."""
        heads = [name for name in HEAD if name in current and name in view.before]
        if not view.labels or not heads:
            return current
        result, moved = dict(current), 0.0
        for name in heads:
            rows = np.setdiff1d(np.arange(len(current[name])), view.labels)
            moved += float(np.square((current[name][rows] - view.before[name][rows]).astype(np.float64)).sum())
            result[name] = current[name].copy()
            result[name][rows] = view.before[name][rows]
        self._notes = {"put_back": moved**0.5}
        return result

    def notes(self) -> Mapping[str, float]:
        """How far the rows had moved."""
        return self._notes


class MaskSettings(GuardSettings):
    """Each stage is trained over its own labels; scores stay over all."""

    others: Annotated[float, within(MaskSite.bounds["others"])] = 0.0
    """Weight of the labels of other stages in the loss: 0 leaves them out, 1 is the plain loss (their rows of a trained
    head are put back anyway: for stages that are domains)."""

    @property
    def claim(self) -> Claim:
        """It is the loss of each record."""
        return "in-step"


GUARD = Guard(
    "mask",
    MaskSettings,
    MaskServer,
    MaskSite,
    asks_labels=True,
    notes={"put_back": "length by which rows of other stages' labels had moved in the round, and were put back"},
)
