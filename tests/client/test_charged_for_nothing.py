"""A task that cannot be done is refused before anybody pays for it; what is paid for ends in a sealed update."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from client import outbox
from client.app import do_train
from client.site import SiteLimits
from llmchain_fl.continual.public_shelf import pack
from llmchain_fl.core.guards.public_records import draw
from llmchain_fl.core.messages import TrainTask
from llmchain_fl.core.work import GuardSpec
from llmchain_fl.replies import Refusal, Update, read_reply

DISTILL = GuardSpec("distill", (("batch", 4.0), ("data", "batch"), ("temperature", 2.0), ("weight", 1.0)))
PUBLIC = GuardSpec("distill", (("batch", 4.0), ("data", "public"), ("temperature", 2.0), ("weight", 1.0)))
ANCHOR = GuardSpec("anchor", (("strength", 1.0),))
OLORA = GuardSpec("olora", (("form", "squared"), ("rows", 4.0), ("strength", 1.0)))
AGEM = GuardSpec("agem", (("batch", 4.0), ("strength", 1.0)))
REPLAY = GuardSpec("replay", (("batch", 4.0), ("data", "public"), ("weight", 1.0)))
Change = Callable[[Any, TrainTask], TrainTask]


def field(*changes: tuple[str, object]) -> Change:
    """Other values in the work description, by their paths."""

    def change(ward: Any, task: TrainTask) -> TrainTask:
        tree = json.loads(task.work)
        for path, value in changes:
            node: Any = tree
            *parents, last = path.split(".")
            for part in parents:
                node = node[part]
            node[last] = value
        return replace(task, work=json.dumps(tree))

    return change


def told(**changes: object) -> Change:
    """Other values in the task."""
    return lambda ward, task: replace(task, **changes)


def arrays(make: Callable[[np.ndarray], Any]) -> Change:
    """Other arrays of the adapter."""
    return lambda ward, task: replace(task, arrays={name: make(value) for name, value in task.arrays.items()})


def guarded(guard: GuardSpec, **payload: object) -> Change:
    """A guard, and what it is said to need."""

    def change(ward: Any, task: TrainTask) -> TrainTask:
        work = replace(ward.work(trained=("lora_A", "lora_B")), guards=(guard,))
        return replace(task, work=work.to_json(), arrays=ward.start(work), guard_arrays=payload)

    return change


def beside(**extra: object) -> Change:
    return lambda ward, task: replace(task, guard_arrays=extra)


def full(value: float, *shape: int) -> np.ndarray:
    return np.full(shape or (2, 2), value, dtype=np.float32)


def rows_of(guard: str, rows: list[dict[str, str]]) -> dict[str, np.ndarray]:
    """Public records as they travel to a guard."""
    return {f"{guard}-records.rows": pack(rows)}


MODULE = "encoder.layer.0.attention.self.query"
FOLD, LABELLED = f"{MODULE}.fold_A", {"text": "card", "label": "rates"}
SCALE = {"teacher-scale.value": full(2.0, 1)}
TEACHER = {f"teacher.{MODULE}.lora_B": full(0.1, 32, 3), **SCALE}
LATER = set(range(40)) - set(draw(40, 4, [0, 0], 0))
"""Of forty public records those that the first step does not draw."""
LEFT_TO_THE_SITE = {"micro_batch 0", "micro_batch -1", f"micro_batch {10**12}"}
IMPOSSIBLE: dict[str, Change] = {
    **{f"micro_batch {n}": field(("train.micro_batch", n)) for n in (0, -1, 10**12)},
    **{f"optimizer {name!r}": field(("train.optimizer", name)) for name in ("lion", "", 7)},
    **{f"momentum {m}": field(("train.momentum", m)) for m in (1.0, -0.5, math.nan, 1e300)},
    **{f"{n} steps": field(("train.steps", n), ("plan.steps_per_round", n)) for n in (0, -1, 10**9, 1.5)},
    **{f"sampling rate {q}": field(("train.sampling_rate", q), ("plan.sampling_rate", q)) for q in (0.0, 1e38, -1.0)},
    **{f"divisor {b}": field(("train.batch_size", b), ("plan.divisor", b)) for b in (0.0, -1.0, 1e300)},
    **{f"proximal {m}": field(("train.proximal", m)) for m in (-1.0, 1e300, math.inf)},
    **{f"seed {n}": field(("train.seed", n)) for n in (-1, 2**70)},
    **{f"rank {n}": field(("adapter.rank", n)) for n in (0, -3, 10**9)},
    **{f"alpha {a}": field(("adapter.alpha", a)) for a in (0.0, math.nan, 1e300)},
    **{f"targets {t}": field(("adapter.targets", t)) for t in ([], ["nowhere"], [""], ["LayerNorm"])},
    "more layers than there are": field(("adapter.last_layers", 99)),
    "an unknown factor": field(("adapter.trained", ["lora_Z"])),
    "no factor": field(("adapter.trained", [])),
    "an unknown task": field(("task.kind", "ranking")),
    "a decoder's task over an encoder": field(("task.kind", "causal-lm"), ("task.labels", [])),
    "no label": field(("task.labels", [])),
    "a label twice": field(("task.labels", [["a", "x"], ["a", "y"]])),
    "an empty label": field(("task.labels", [["", "x"]])),
    **{f"scale {s}": field(("task.scale", s)) for s in (0.0, math.nan, -1.0)},
    "an unknown pooling": field(("task.pooling", "max")),
    **{f"max_tokens {n}": field(("task.max_tokens", n)) for n in (0, 1, 49, 10**6)},
    "answers out of the label list": field(("task.candidate_labels", [["cards", [9]]])),
    "no answer of the label list": field(("task.candidate_labels", [["cards", []]])),
    "labels of a stage out of the label list": field(("task.stage_labels", [["cards", [0, 4]]])),
    "a stage without labels": field(("task.stage_labels", [["cards", []]])),
    "a label of a stage twice": field(("task.stage_labels", [["cards", [1, 1]]])),
    "a mask, and no labels of stages": field(("guards", [{"name": "mask", "settings": [["others", 0.0]]}])),
    "a mask, and labels of another stage": field(
        ("guards", [{"name": "mask", "settings": [["others", 0.0]]}]), ("task.stage_labels", [["accounts", [0, 1]]])
    ),
    "a mask that counts others twice": field(
        ("guards", [{"name": "mask", "settings": [["others", 2.0]]}]), ("task.stage_labels", [["cards", [0, 1]]])
    ),
    "an unknown codec": field(("codec.name", "zip")),
    "a codec without a block": field(("codec.block", 0)),
    "a codec that keeps nothing": field(("codec.name", "top-k"), ("codec.share", 0.0)),
    "a codec's share of nothing": field(("codec.share", math.nan)),
    "a negative cache": field(("cache_mb", -1)),
    "2 ** 31 - 1 threads": field(("threads", 2**31 - 1)),
    "a base that is not there": field(("base.path", "/nowhere")),
    "a base with a control character": field(("base.path", "a\x1b[2J")),
    "an unknown number type": field(("base.dtype", "int8")),
    "an unknown device": field(("base.device", "tpu")),
    "an encoder for a decoder": field(("base.kind", "causal-lm")),
    **{f"learning rate {lr}": told(lr=lr) for lr in (math.nan, math.inf, -1.0, 0.0, 1e300)},
    "so long a step that the adapter overflows": lambda w, t: replace(
        field(("train.optimizer", "sgd"))(w, t), lr=1e3, arrays={n: full(3e38, *v.shape) for n, v in t.arrays.items()}
    ),
    **{f"round {n}": told(round=n) for n in (-1, 10**12)},
    **{f"clip {c}": told(clip=c) for c in (-1.0, math.nan, 1e300)},
    "an unknown factor for the round": told(trains=("lora_Z",)),
    "a factor that the work does not train": told(trains=("lora_A",)),
    "an unknown factor that stays": told(keeps=("everything",)),
    "no arrays": told(arrays={}),
    "an unknown array": lambda w, t: replace(t, arrays={**t.arrays, "x.lora_B": full(1.0)}),
    "arrays with a dimension more": arrays(lambda value: value[None]),
    "arrays cut in half": arrays(lambda value: value[: len(value) // 2]),
    "arrays of text": arrays(lambda value: value.astype("U9")),
    "arrays of objects": arrays(lambda value: value.astype(object)),
    "arrays of whole numbers": arrays(lambda value: value.astype(np.int64)),
    "arrays of complex numbers": arrays(lambda value: value.astype(np.complex64)),
    "lists for arrays": arrays(lambda value: value.tolist()),
    "arrays of NaN": arrays(lambda value: np.full_like(value, np.nan)),
    "one infinity": arrays(
        lambda value: np.where(np.arange(value.size).reshape(value.shape) == 0, np.inf, value).astype("f4")
    ),
    "arrays that overflow at every record": arrays(lambda value: np.full_like(value, 3e38)),
    "half a fold": lambda w, t: replace(t, arrays={**t.arrays, FOLD: full(0.1, 2, 32)}),
    "half a fold beside": beside(**{FOLD: full(0.1, 2, 32), "route.keys": full(1.0, 1, 32)}),
    "half a table of slots": beside(**{"route.keys": full(1.0, 1, 32)}),
    "a table of slots of another width": beside(
        **{
            "route.keys": full(1.0, 1, 3),
            "route.centre": full(0.0, 3),
            "route.tau": full(1.0, 1),
            "slots.pair": full(1, 3),
        }
    ),
    "a temperature of zero": beside(
        **{
            "route.keys": full(1.0, 1, 32),
            "route.centre": full(0, 32),
            "route.tau": full(0, 1),
            "slots.pair": full(1, 3),
        }
    ),
    "a guard without settings": field(("guards", [{"name": "agem", "settings": []}])),
    "an unknown guard": field(("guards", [{"name": "ewc", "settings": []}])),
    "a guard with a setting that is none": field(
        ("guards", [{"name": "ema", "settings": [["decay", 0.5], ["x", 1.0]]}])
    ),
    "a guard whose setting is NaN": field(("guards", [{"name": "ema", "settings": [["decay", math.nan]]}])),
    "a guard twice": field(("guards", [{"name": "ema", "settings": [["decay", 0.5]]}] * 2)),
    "a rehearsal that nobody pays for": guarded(GuardSpec("rehearsal", (("keep", 1.0),))),
    "a teacher of another base": guarded(
        DISTILL, **{"teacher.x.lora_A": full(1.0), "teacher.x.lora_B": full(1.0), **SCALE}
    ),
    "a teacher of NaN": guarded(DISTILL, **{f"teacher.{MODULE}.lora_B": full(math.nan, 32, 3), **SCALE}),
    "a teacher of half a fold": guarded(DISTILL, **{f"teacher.{MODULE}.fold_A": full(1.0, 2, 32), **SCALE}),
    "public records of no text": guarded(PUBLIC, **TEACHER, **{"distill-records.rows": np.arange(7, dtype=np.uint8)}),
    "public records of floats": guarded(PUBLIC, **TEACHER, **{"distill-records.rows": full(0.0, 9)}),
    "public records of another task": guarded(
        PUBLIC, **TEACHER, **rows_of("distill", [{"prompt": "x", "answer": "y"}])
    ),
    "a key of draws that is none": guarded(
        REPLAY, **rows_of("replay", [LABELLED] * 9), **{"replay-records.draw": np.array([-1, 0])}
    ),
    "replay of bytes that are no records": guarded(REPLAY, **{"replay-records.rows": np.arange(9, dtype=np.uint8)}),
    "replay of a record that a later step draws and whose label is none": guarded(
        REPLAY, **rows_of("replay", [{"text": "x", "label": "unheard"} if i in LATER else LABELLED for i in range(40)])
    ),
    "a reference with a label that is none": guarded(AGEM, **rows_of("agem", [{"text": "x"}] + [LABELLED] * 39)),
    "an anchor of other widths": guarded(
        ANCHOR, **{f"anchor.{MODULE}.lora_A": full(1.0, 3, 7), f"anchor.{MODULE}.lora_B": full(1.0, 9, 3)}
    ),
    "old rows of another width": guarded(OLORA, **{f"olora-rows.{MODULE}": full(1.0, 2, 3)}),
    "stages named twice": told(earlier=("a", "a")),
    "a stage that leads out of the folder": told(stage_name="../x"),
    "a plan for fewer steps": field(("plan.steps_per_round", 1)),
    "a plan with another divisor": field(("plan.divisor", 1.0)),
    "a plan whose noise is NaN": field(("plan.noise_multiplier", math.nan)),
    "a plan with a clip norm of zero": field(("plan.clip_norm", 0.0)),
    "work of a later version": field(("later", 1)),
}
"""What no honest server of this version sends, or what cannot be computed."""


@pytest.fixture
def booking(ward: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    ward.limits = SiteLimits(epsilon=60.0, units=["record"])
    return ward


def play(ward: Any, task: TrainTask) -> Any:
    try:
        return read_reply(do_train(ward.site, task, {}, None))
    except Exception as error:
        return read_reply(outbox.refuse(error))


@pytest.mark.parametrize("name", IMPOSSIBLE)
@pytest.mark.part(2)
def test_a_task_that_cannot_be_done_is_refused_before_anything_is_paid(booking: Any, name: str) -> None:
    ward = booking
    task = IMPOSSIBLE[name](ward, ward.task(ward.work()))
    reply = play(ward, task)
    if isinstance(reply, Update):
        assert ward.booked() == ["reserve", "seal"]
        assert all(np.isfinite(np.asarray(value, dtype=np.float64)).all() for value in reply.arrays.values())
    else:
        assert isinstance(reply, Refusal)
        assert ward.booked() == []


def test_the_same_site_takes_the_task_that_was_changed(booking: Any) -> None:
    """Negative control: it is the change that is refused."""
    assert isinstance(play(booking, booking.task(booking.work())), Update)
    assert booking.booked() == ["reserve", "seal"]


@pytest.mark.thorough
def test_hardly_any_of_them_is_done_after_all(booking: Any) -> None:
    """What the site decides by itself is no reason to refuse; all else is."""
    done = set()
    for number, (name, change) in enumerate(IMPOSSIBLE.items()):
        task = change(booking, booking.task(booking.work(), round=number))
        if isinstance(play(booking, task), Update):
            done.add(name)
    assert done == LEFT_TO_THE_SITE
