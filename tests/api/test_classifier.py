"""Labels from an adapter folder with transformers and peft alone: the same as the run serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llmchain_fl as lf
from llmchain_fl.adapter.files import Lineage, write_adapter
from llmchain_fl.adapter.slots_file import Slots
from llmchain_fl.core.errors import ModelError

TEXTS = ["card lost stolen", "why", "rate of a loan", "", "send money pay send money pay send money pay"]


def written(small: Any, folder: Path, slots: Any = None, **settings: Any) -> Any:
    """The task whose adapter is in ``folder``."""
    task = small.task(**settings)
    settings.pop("moved", None)
    lineage = Lineage(run="r", round=1, stage="cards", parent="")
    write_adapter(folder, task.resident, task.resident.arrays(), small.work(**settings), lineage, slots)
    return task


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"pooling": "cls"},
        {"head": "trained"},
        {"head": "trained", "features": 7},
        {"last_layers": 1},
        {"max_tokens": 5},
        {"targets": ("query",)},
    ],
    ids=str,
)
def test_transformers_and_peft_give_the_labels_that_the_run_serves(
    small: Any, tmp_path: Path, settings: dict[str, Any]
) -> None:
    task = written(small, tmp_path, **settings)
    ours, plain = task.predict(TEXTS, 4), lf.Classifier.from_folder(tmp_path).top(TEXTS, 4)
    assert [[name for name, _ in found] for found in plain] == [[name for name, _ in found] for found in ours]
    flat = [[[chance for _, chance in found] for found in one] for one in (ours, plain)]
    assert np.allclose(*flat, atol=1e-5)


def test_one_text_no_text_and_more_labels_than_there_are(small: Any, tmp_path: Path) -> None:
    written(small, tmp_path)
    classifier = lf.Classifier.from_folder(tmp_path)
    assert classifier([]) == []
    assert classifier("why") == [classifier.top(["why"], 99)[0][0][0]]
    assert len(classifier.top(["why"], 99)[0]) == len(classifier.labels) == 4


def test_an_adapter_that_changes_nothing_says_so(small: Any, tmp_path: Path) -> None:
    task = small.task(moved=0.0)
    arrays = {n: np.zeros_like(v) if n.endswith("lora_B") else v for n, v in task.resident.arrays().items()}
    write_adapter(tmp_path, task.resident, arrays, small.work(), Lineage("r", 1, "cards", ""))
    with pytest.warns(UserWarning, match="changes nothing"):
        lf.Classifier.from_folder(tmp_path)


def test_what_plain_peft_cannot_serve_is_refused_with_the_way_that_is_left(small: Any, tmp_path: Path) -> None:
    route = {
        "route.keys": np.eye(2, 32, dtype=np.float32),
        "route.centre": np.zeros(32, dtype=np.float32),
        "route.tau": np.ones(1, dtype=np.float32),
    }
    written(small, tmp_path / "slots", Slots(("a", "b"), np.array([1, 1, 2]), route))
    with pytest.raises(ModelError, match="llmchain-fl predict"):
        lf.Classifier.from_folder(tmp_path / "slots")
    written(small, tmp_path / "text", kind="causal-lm")
    with pytest.raises(ModelError, match="has no labels"):
        lf.Classifier.from_folder(tmp_path / "text")
    with pytest.raises(ModelError, match="holds no adapter"):
        lf.Classifier.from_folder(tmp_path)
    written(small, tmp_path / "moved")
    with pytest.raises(ModelError, match="give base="):
        lf.Classifier.from_folder(tmp_path / "moved", base=str(tmp_path / "nowhere"))
