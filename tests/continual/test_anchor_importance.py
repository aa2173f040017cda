"""The guard ``anchor`` at the server: the anchor, its importances, its state."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from llmchain_fl.continual.fisher import public_fisher
from llmchain_fl.core.adapter.digest import digest
from llmchain_fl.core.adapter.product import modules
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.guards.anchor import AnchorSite
from llmchain_fl.guards.anchor import FLOOR, AnchorServer

PLAIN = {"importance": "plain", "decay": 1.0, "strength": 1.0}
QUERY = "encoder.layer.0.attention.self.query"


def ended(task: Any, view: Any, arrays: Arrays, **settings: Any) -> AnchorServer:
    """A server half at the end of a stage."""
    server = AnchorServer({**PLAIN, **settings})
    shown = view(task, before=task.resident.fresh(), scale=task.resident.spec.adapter.scale)
    server.step(shown, arrays)
    server.on_stage_end(shown, arrays, arrays)
    return server


def moved(task: Any, size: float = 0.05) -> None:
    draw = torch.Generator().manual_seed(5)
    task.resident.trained.add_(size * torch.randn(task.resident.trained.shape, generator=draw))


def whole(task: Any) -> Arrays:
    return {**task.resident.arrays(), **task.resident.fold.arrays()}


def test_plain_importance_is_one_whatever_the_decay(small: Any, view: Any) -> None:
    task = small.task()
    server = ended(task, view, whole(task), decay=0.5)
    server.on_stage_end(view(task, stage=1), whole(task), whole(task))
    assert not [name for name in server.payload() if name.startswith(("anchor-row", "anchor-col"))]


def test_importances_add_up_over_stages_with_their_decay(small: Any, view: Any) -> None:
    """Public Fisher twice over: rows of mean 1, then of mean decay + 1; F = row col / mean has that mean too."""
    task = small.task()
    seen = {"public_rows": tuple(small.rows(4)), "scale": task.resident.spec.adapter.scale}
    server = AnchorServer({**PLAIN, "importance": "public", "decay": 0.5})
    server.on_stage_end(view(task, **seen), whole(task), whole(task))
    one = server.payload()
    server.on_stage_end(view(task, **seen), whole(task), whole(task))
    two = server.payload()
    assert one[f"anchor-row.{QUERY}"].mean() == pytest.approx(1.0, rel=1e-3)
    assert np.allclose(two[f"anchor-row.{QUERY}"], 1.5 * one[f"anchor-row.{QUERY}"], rtol=1e-5)
    row, col = AnchorSite(PLAIN, two)._importance(task.resident, QUERY, (32, 32))
    assert float((row[:, None] * col).mean()) == pytest.approx(1.5, rel=1e-3)
    assert one[f"anchor-row.{QUERY}"].std() > 0.1


def test_an_importance_is_never_zero(small: Any, view: Any) -> None:
    task = small.task()
    after = whole(task)
    before = after | {f"{QUERY}.lora_B": after[f"{QUERY}.lora_B"] * (np.arange(32) > 3)[:, None].astype(np.float32)}
    server = AnchorServer({**PLAIN, "importance": "path"})
    server.step(view(task, before=before), after)
    server.on_stage_end(view(task), after, after)
    rows = server.payload()[f"anchor-row.{QUERY}"]
    assert rows[:4].min() > 1.0
    assert np.allclose(rows[4:], FLOOR)


def test_the_path_of_a_stage_is_what_its_released_rounds_moved(small: Any, view: Any, dense: Any) -> None:
    task, draw = small.task(), np.random.default_rng(2)
    track = [whole(task)]
    for _ in range(3):
        track.append({n: (v + draw.normal(size=v.shape)).astype(np.float32) for n, v in track[-1].items()})
    server = AnchorServer({**PLAIN, "importance": "path"})
    for before, after in pairwise(track):
        server.step(view(task, before=before), after)
    server.on_stage_end(view(task), track[-1], track[-1])
    steps = [dense(b, QUERY) - dense(a, QUERY) for a, b in pairwise(track)]
    rows = np.mean([np.square(step).sum(axis=1) for step in steps], axis=0)
    assert np.allclose(server.payload()[f"anchor-row.{QUERY}"], np.maximum(rows / rows.mean(), FLOOR), rtol=1e-4)


def test_a_stage_without_a_round_leaves_the_importance_as_it_was(small: Any, view: Any) -> None:
    task = small.task()
    server = ended(task, view, whole(task), importance="path")
    before = server.payload()
    server.on_stage_end(view(task, stage=1), whole(task), whole(task))
    assert digest(server.payload()) == digest(before)


def test_public_importance_is_the_fisher_of_the_anchor_on_records_of_ended_stages(small: Any, view: Any) -> None:
    task = small.task()
    star = whole(task)
    rows = [{**row, "stage": stage} for row, stage in zip(small.rows(6), ["first", "second"] * 3, strict=True)]
    wanted, _ = public_fisher(task, task.encode(rows[::2]), [QUERY], 7)[QUERY]
    moved(task, size=1.0)  # the resident holds something else by then
    server = AnchorServer({**PLAIN, "importance": "public"})
    server.on_stage_end(view(task, public_rows=tuple(rows)), star, star)
    found = server.payload()[f"anchor-row.{QUERY}"]
    assert np.allclose(found, np.maximum(wanted / wanted.mean(), FLOOR), rtol=1e-3)


def test_public_importance_without_public_records_is_a_fault(small: Any, view: Any) -> None:
    task = small.task()
    with pytest.raises(ConfigError, match=r"continual\.public"):
        AnchorServer({**PLAIN, "importance": "public"}).on_stage_end(view(task), whole(task), whole(task))


def test_the_distance_that_is_told_is_that_of_the_products(small: Any, view: Any, dense: Any) -> None:
    task = small.task()
    star = whole(task)
    server = AnchorServer(PLAIN)
    server.step(view(task, before=star), star)
    assert server.notes() == {}
    server.on_stage_end(view(task), star, star)
    moved(task)
    now = whole(task)
    server.step(view(task, before=star), now)
    apart = [np.square(dense(now, m) - dense(star, m)).sum() for m in modules(star)]
    size = [np.square(dense(star, m)).sum() for m in modules(star)]
    assert server.notes()["distance"] == pytest.approx(np.sqrt(sum(apart) / sum(size)), rel=1e-4)


@pytest.mark.parametrize("importance", ["plain", "public", "path"])
def test_the_state_survives_in_the_middle_of_a_stage(small: Any, view: Any, importance: str) -> None:
    task, settings = small.task(), {**PLAIN, "importance": importance, "decay": 0.5}
    seen = {"public_rows": tuple(small.rows(3)), "before": task.resident.fresh()}
    one, two = AnchorServer(settings), AnchorServer(settings)
    for server in (one, two):
        server.step(view(task, **seen), whole(task))
        server.on_stage_end(view(task, **seen), whole(task), whole(task))
        server.step(view(task, **seen), whole(task))
    again = AnchorServer(settings)
    again.load_state(two.state())
    for server in (one, again):
        server.step(view(task, **seen), whole(task))
        server.on_stage_end(view(task, **seen), whole(task), whole(task))
    assert digest(again.payload()) == digest(one.payload())
    assert again.payload().keys() == one.payload().keys()
