"""The card beside an adapter says what plain peft serves of it, and the code on it works."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from peft import PeftModel
from transformers import AutoModel

from llmchain_fl.adapter.card import privacy_sentence
from llmchain_fl.adapter.files import Lineage, write_adapter
from llmchain_fl.adapter.slots_file import Slots

LINEAGE = Lineage(run="r1", round=4, stage="cards", parent="")


def card(
    small: Any, folder: Path, *, still: bool = False, slots: Any = None, privacy: str = "", **settings: Any
) -> str:
    """The card of a folder that is written here; ``still``: every B is 0."""
    task = small.task(**settings)
    arrays = task.resident.arrays()
    if still:
        arrays |= {name: np.zeros_like(value) for name, value in arrays.items() if name.endswith("lora_B")}
    write_adapter(folder, task.resident, arrays, small.work(**settings), LINEAGE, slots, privacy)
    return (folder / "README.md").read_text(encoding="utf-8")


def served(text: str) -> str:
    """The last section."""
    return text.partition("## What plain peft serves of it")[2]


def test_the_card_names_base_task_labels_rounds_privacy_and_licences(small: Any, tmp_path: Path) -> None:
    said = privacy_sentence(2.341, "delta 1e-05, per person, PLD accountant", small.plan(unit="person"))
    text = card(small, tmp_path, privacy=said)
    for part in (
        str(small.bert),
        "`classification`",
        "4: lost_card",
        "4, the last of stage cards",
        "licence of the base",
    ):
        assert part in text
    assert "epsilon 2.35 (delta 1e-05, per person, PLD accountant)" in text
    assert "noise is added at the sites" in text
    front = yaml.safe_load(text.split("---")[1])
    assert (front["base_model"], front["library_name"]) == (str(small.bert), "peft")


def test_a_run_without_privacy_says_so_and_a_central_one_names_whom_it_trusts(small: Any) -> None:
    assert privacy_sentence(None, "", None).startswith("none: trained without")
    assert "the server, which is trusted" in privacy_sentence(
        1.0, "", small.plan(unit="site", sampling_rate=1.0, steps_per_round=1)
    )


def test_factors_alone_are_served_as_they_are_but_labels_are_not(small: Any, tmp_path: Path) -> None:
    text = served(card(small, tmp_path))
    assert "changes the base as the run did" in text
    assert "no labels" in text


def test_a_trained_head_is_left_out_by_peft_and_the_card_says_it(small: Any, tmp_path: Path) -> None:
    """The other road: peft loads the folder without a word, and what it loads has no head."""
    assert "Not the trained head" in served(card(small, tmp_path, head="trained"))
    model = PeftModel.from_pretrained(AutoModel.from_pretrained(small.bert), str(tmp_path))
    assert not [name for name, _ in model.named_parameters() if "head" in name]


def test_an_adapter_that_moves_nothing_is_called_nothing(small: Any, tmp_path: Path) -> None:
    assert "**Nothing.**" in served(card(small, tmp_path / "a", still=True))
    assert "**Nothing.**" not in served(card(small, tmp_path / "b"))


@pytest.mark.parametrize("chooses", [True, False])
def test_slots_are_summed_by_peft_and_only_a_choice_is_lost(small: Any, tmp_path: Path, chooses: bool) -> None:
    route = {"route.keys": np.eye(2, 32, dtype=np.float32)} if chooses else {}
    text = card(small, tmp_path, slots=Slots(("a", "b"), np.array([1, 1, 2]), route))
    assert "| slots | a, b |" in text
    assert ("The **sum** of all slots" in served(text)) is chooses


@pytest.mark.parametrize("settings", [{}, {"kind": "causal-lm"}], ids=str)
def test_the_code_on_the_card_runs(small: Any, tmp_path: Path, settings: dict[str, Any]) -> None:
    text = card(small, tmp_path, **settings)
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(code.replace("path/of/this/folder", str(tmp_path)).replace("a prompt", "card"), {})


def test_a_name_from_outside_breaks_no_cell(small: Any, tmp_path: Path) -> None:
    task = small.task()
    work = small.work()
    lineage = Lineage(run="r1", round=1, stage="a|b\nc", parent="")
    write_adapter(tmp_path, task.resident, task.resident.arrays(), work, lineage)
    assert "stage a\\|b c (run" in (tmp_path / "README.md").read_text(encoding="utf-8")
