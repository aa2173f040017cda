"""``slots``: an adapter of its own for each stage, which cannot touch what earlier stages see.

At the end of stage t the pair becomes a frozen block of the fold, and the next stage gets a new pair::

    fold  <-  [fold; (s B_t, A_t)]        P  <-  P, rows of A_t, leading directions of the layer's public inputs
    A_t+1 =  l * orthonormal rows drawn from (seed, t+1, module) with A_t+1 P^T = 0,       B_t+1 = 0

Everybody serves the sum of the slots, ``Delta W = sum_t s B_t A_t``. For an input x in the span of P,
``s B A x = 0`` for every B: what the new stage learns cannot change the outputs of a layer there, and, layer by layer,
nothing that follows from them (InfLoRA, Liang & Li, CVPR 2024; GPM, Saha et al., ICLR 2021; federated: FOT, Bakman et
al., ICLR 2024). Rows of old A's alone protect update subspaces, not outputs (``share = 0``; O-LoRA's case).

With a rule that freezes A (``ffa``) this holds by itself. Where A moves (``fedit``, ``rolora``, ``hetlora``, a server
optimizer, noise on A) each round ends with ``A <- A - (A P^T) P``: post-processing, and the noise in there goes too.

Reads public records and released arrays: no epsilon.

Where we differ: InfLoRA and FOT take the inputs of private records, which would have to be paid for; here they are
public. Rows are as long as those of a fresh A on average, ``l = 1 / sqrt 3``, so that a learning rate means the same in
every stage. A trained head has no slots: it is protected by nothing here.

=====================================  ==================================================================
case                                   result
=====================================  ==================================================================
first stage                            nothing is protected; A is that of the start
last stage has ended                   nothing changes: there is no stage to come
A has left the space in a round        it is put back; ``notes`` says how far it had (``leak``)
A is where it was drawn                the arrays come back bit for bit
stages x rank > d_in of some layer     ModelError in the first round
the share does not fit                 fewer directions: the stages to come have their place first
public records without a stage         all of them count for every stage
no public record of some stage         DataError in the first round
=====================================  ==================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from llmchain_fl.continual.layer_inputs import second_moments
from llmchain_fl.continual.subspace import Float, drawn, joined, leading, leak, nothing, without
from llmchain_fl.core.adapter.product import modules
from llmchain_fl.core.adapter.routing import FOLD, PAIR
from llmchain_fl.core.adapter.value import Array, Arrays
from llmchain_fl.core.errors import DataError, ModelError
from llmchain_fl.core.guards.site_guard import Settings
from llmchain_fl.guards.guard import Guard, GuardSettings, Records
from llmchain_fl.guards.needs import pair_of_its_own
from llmchain_fl.guards.protocol import ServerGuard, View

LENGTH = 3**-0.5
"""Length of a drawn row: the root mean square of that of a fresh one (``fresh_arrays``)."""
TOLERANCE = 1e-6
"""A leak of float32's rounding is none."""


class SlotsServer(ServerGuard):
    """Holds P of each module and the stage of each row of the fold. There is no site half."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._share = float(settings["share"])
        self._basis: dict[str, Array] = {}
        self._rows = np.zeros(0, np.float32)
        self._notes: dict[str, float] = {}

    @classmethod
    def check(cls, start: Arrays, stages: int) -> None:
        """The slots of all stages must fit beside each other; see :func:`check_capacity`."""
        check_capacity(start, stages)

    def step(self, view: View, current: Arrays) -> Arrays:
        """A outside the protected space.

        Raises:
            ModelError: stages x rank do not fit into a layer.
            DataError: there is no public record of some stage.
        """
        if view.stage == 0:
            check_capacity(current, len(view.stages))
            if self._share > 0:
                check_public(view, len(view.stages) - 1)
        result, worst = dict(current), 0.0
        for module, basis in self._basis.items():
            name = f"{module}.lora_A"
            share = leak(current[name], basis.astype(np.float64))
            worst = max(worst, share)
            if share > TOLERANCE:
                result[name] = np.array(without(current[name], basis.astype(np.float64)), dtype=np.float32, order="C")
        self._notes = {"leak": worst, **self._room(current)}
        return result

    def serve(self, view: View, serving: Arrays) -> Arrays:
        """As it is, and beside it the stage (from 1) of each row of the fold and of the pair."""
        rank = next(value.shape[0] for name, value in serving.items() if name.endswith(".lora_A"))
        stages = {PAIR: np.full(rank, view.stage + 1, np.float32)}
        return {**serving, **stages, **({FOLD: self._rows.copy()} if len(self._rows) else {})}

    def on_stage_end(self, view: View, current: Arrays, serving: Arrays) -> Arrays:
        """The pair into the fold, a new pair in its place."""
        to_come = len(view.stages) - view.stage - 1
        if to_come <= 0:
            return current
        names = modules(current)
        taken = {m: joined(self._space(m, current), current[f"{m}.lora_A"]) for m in names}
        for module, directions in self._inputs(view, serving, taken, to_come):
            taken[module] = np.vstack([taken[module], directions])
        result = dict(current)
        for module, basis in taken.items():
            key = f"{view.seed}/{view.stage + 1}/{module}"
            result |= _next(current, module, view.scale, LENGTH * drawn(key, _rank(current, module), basis))
        self._basis = {module: np.array(basis, dtype=np.float32, order="C") for module, basis in taken.items()}
        added = np.full(_rank(current, names[0]), view.stage + 1, np.float32)
        self._rows = np.concatenate([self._rows, added])
        return result

    def notes(self) -> Mapping[str, float]:
        """``protected``: largest share of a layer's inputs in P; ``free``: smallest share left to slots; ``leak``."""
        return self._notes

    def state(self) -> Arrays:
        """P by module, and the stage of each row of the fold."""
        return {"rows": self._rows.copy(), **{f"basis/{module}": basis for module, basis in self._basis.items()}}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """What :meth:`state` gave."""
        self._rows = np.array(state.get("rows", ()), dtype=np.float32)
        self._basis = {n.removeprefix("basis/"): np.array(v) for n, v in state.items() if n.startswith("basis/")}

    def _space(self, module: str, arrays: Arrays) -> Float:
        basis = self._basis.get(module)
        return nothing(arrays[f"{module}.lora_A"].shape[1]) if basis is None else basis.astype(np.float64)

    def _inputs(self, view: View, serving: Arrays, taken: dict[str, Float], to_come: int) -> list[tuple[str, Float]]:
        """The directions of this stage's public inputs that are protected from here on."""
        if self._share <= 0 or view.public is None:
            return []
        view.task.resident.reset()
        view.task.resident.load(serving)
        index = view.public.rows_of(public_of(view, view.stage)).tolist()
        result = []
        for module, moment in second_moments(view.task, view.public, index, list(taken)):
            width = len(moment)
            room = width - len(taken[module]) - to_come * _rank(serving, module)
            most = min(int(self._share * width), room)
            result.append((module, leading(moment, taken[module], most)))
        return result

    def _room(self, arrays: Arrays) -> dict[str, float]:
        parts = [(len(basis) / basis.shape[1], _rank(arrays, m) / basis.shape[1]) for m, basis in self._basis.items()]
        protected = max((taken for taken, _ in parts), default=0.0)
        return {"protected": protected, "free": min((1.0 - taken - own for taken, own in parts), default=1.0)}


def check_capacity(arrays: Arrays, stages: int) -> None:
    """Refuse a stream whose slots do not fit beside each other: ``stages x r <= d_in`` for every module.

    Raises:
        ModelError: they do not; names the module and the bound.
    """
    for module in modules(arrays):
        rank, width = arrays[f"{module}.lora_A"].shape
        if stages * rank > width:
            fault = f"{stages} stages of rank {rank} need {stages * rank} directions; {module} has {width} inputs"
            raise ModelError(fault, remedy=f"lower adapter.rank to {max(1, width // stages)}, or leave out guard slots")


def public_of(view: View, stage: int) -> list[int]:
    """Numbers of the public records of a stage, by their column ``stage``; all records where none has one.

    Raises:
        DataError: there is none.
    """
    count, name = 0 if view.public is None else view.public.records, view.stages[stage]
    named = any("stage" in row for row in view.public_rows)
    places = [i for i, row in enumerate(view.public_rows) if row.get("stage") == name] if named else list(range(count))
    if not places:
        message = f'no public record belongs to stage "{name}"'
        raise DataError(message, remedy='name the stage of each record of continual.public in a column "stage"')
    return places


def check_public(view: View, stages: int) -> None:
    """Whether the first ``stages`` stages have public records.

    Raises:
        DataError: one has none.
    """
    for stage in range(stages):
        public_of(view, stage)


def _rank(arrays: Arrays, module: str) -> int:
    return int(arrays[f"{module}.lora_A"].shape[0])


def _next(arrays: Arrays, module: str, scale: float, drawn_a: Float) -> Arrays:
    """The arrays of one module with its pair laid into the fold (scale 1 there) and a new pair.

    In C order: safetensors writes the memory of an array as it lies, so a transposed one would come back as another.
    """
    a, b = arrays[f"{module}.lora_A"], arrays[f"{module}.lora_B"]
    block = (scale * b.astype(np.float64)).astype(np.float32)
    fold_a, fold_b = arrays.get(f"{module}.fold_A"), arrays.get(f"{module}.fold_B")
    made = {
        f"{module}.fold_A": a if fold_a is None else np.vstack([fold_a, a]),
        f"{module}.fold_B": block if fold_b is None else np.hstack([fold_b, block]),
        f"{module}.lora_A": drawn_a,
        f"{module}.lora_B": np.zeros_like(b),
    }
    return {name: np.array(value, dtype=np.float32, order="C") for name, value in made.items()}


class SlotsSettings(GuardSettings):
    """A frozen pair for each stage; the next is drawn outside the inputs that earlier stages need."""

    share: Annotated[float, Field(ge=0, le=0.5)] = 0.02
    """Share of each layer's input directions that public records of a stage protect; 0: earlier A's only."""

    @property
    def records(self) -> Records:
        """They tell which inputs a stage needs."""
        return "public by stage" if self.share > 0 else "none"


GUARD = Guard(
    "slots",
    SlotsSettings,
    SlotsServer,
    needs=(pair_of_its_own("freezes a pair for each stage"),),
    stages="earlier",
    new_pairs=True,
    marks_pairs=True,
    notes={
        "free": "smallest share of a layer's inputs left to later stages",
        "leak": "share of A found outside the place it may be in, and put back",
        "protected": "largest share of a layer's inputs that is protected",
    },
)
