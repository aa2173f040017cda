from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from client.dataset import site_examples
from llmchain_fl.errors import DataError, WireError
from llmchain_fl.work import open_work


def read(ward: Any, work: Any, kept: Any, stage: str = "cards", which: str = "train") -> Any:
    return site_examples(ward.site, stage, which, work, open_work(work.resident, work.task)[1], kept)


def test_records_are_read_once(ward: Any) -> None:
    work, kept = ward.work(), {}
    first = read(ward, work, kept)
    (ward.folder / "cards.jsonl").unlink()
    assert read(ward, work, kept) is first
    assert len(first) == 12


def test_training_and_held_out_records_are_kept_apart(ward: Any) -> None:
    work, kept = ward.work(), {}
    assert [len(read(ward, work, kept, which=which)) for which in ("train", "held_out", "train")] == [12, 6, 12]


@pytest.mark.parametrize("other", [{"max_tokens": 4}, {"rank": 2}, {"last_layers": 1}])
def test_what_was_read_for_another_model_or_task_is_not_used(ward: Any, other: dict[str, Any]) -> None:
    """Token ids and kept outputs belong to one model; a second run in the same process may bring another."""
    kept: Any = {}
    first = read(ward, ward.work(), kept)
    second = read(ward, ward.work(**other), kept)
    assert second is not first
    assert len(kept) == 1


def test_another_tokenizer_gives_other_ids(ward: Any, small: Any) -> None:
    kept: Any = {}
    first = read(ward, ward.work(), kept)
    work = ward.work()
    other = replace(work, base=replace(work.base, path=str(small.llama)))
    assert [list(ids) for ids in read(ward, other, kept).ids] != [list(ids) for ids in first.ids]


@pytest.mark.parametrize("stage", ["../cards", "/etc/passwd", "a/b", "", ".", "..", "cards\n", "{stage}", "a" * 65])
def test_a_stage_cannot_lead_out_of_the_sites_folder(ward: Any, stage: str) -> None:
    with pytest.raises(WireError):
        read(ward, ward.work(), {}, stage=stage)


def test_no_held_out_records_are_an_error_that_says_so(ward: Any) -> None:
    work = ward.work()
    bare = ward.site.model_copy(update={"data": ward.site.data.model_copy(update={"held_out": ""})})
    with pytest.raises(DataError, match="no held_out records"):
        site_examples(bare, "cards", "held_out", work, open_work(work.resident, work.task)[1], {})


def test_columns_of_the_file_are_mapped(ward: Any, small: Any) -> None:
    ward.write("cards.jsonl", [{"note": "lost card", "ward": "rates"}])
    data = ward.site.data.model_copy(update={"columns": {"text": "note", "label": "ward"}})
    work = ward.work()
    found = site_examples(
        ward.site.model_copy(update={"data": data}), "cards", "train", work, open_work(work.resident, work.task)[1], {}
    )
    assert found.targets.tolist() == [list(small.labels).index("rates")]
