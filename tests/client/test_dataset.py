from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Any

import pytest

from client import dataset
from client.dataset import site_records
from llmchain_fl.core.data import state
from llmchain_fl.core.errors import DataError, WireError
from llmchain_fl.core.work import open_work


def read(ward: Any, work: Any, kept: Any, stage: str = "cards", which: str = "train") -> Any:
    return site_records(ward.site, stage, which, work, open_work(work.resident, work.task)[1], kept)


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as unchanged at once, not only after two seconds."""
    monkeypatch.setattr(state, "SETTLED", -60.0)


@pytest.mark.usefixtures("settled")
def test_records_are_read_once_for_as_long_as_their_file_is_the_same(
    ward: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, kept = ward.work(), {}
    first = read(ward, work, kept)
    monkeypatch.setattr(dataset, "_read", lambda *_: pytest.fail("read again"))
    assert read(ward, work, kept) is first
    assert len(first.examples) == 12


def test_records_of_a_file_that_was_written_a_moment_ago_are_read_again(ward: Any) -> None:
    work, kept = ward.work(), {}
    first = read(ward, work, kept)
    assert read(ward, work, kept) is not first


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("way", ["rewritten", "replaced", "rewritten with the same size and time"])
def test_a_record_that_was_erased_is_in_no_later_round(ward: Any, way: str) -> None:
    work, kept, file = ward.work(), {}, ward.folder / "cards.jsonl"
    assert len(read(ward, work, kept).examples) == 12
    before, lines = file.stat(), file.read_text().splitlines(keepends=True)
    left = "".join(lines[:-1])
    if way == "replaced":
        other = file.with_suffix(".new")
        other.write_text(left)
        other.replace(file)
    else:
        file.write_text(left + " " * (before.st_size - len(left) - 1) + "\n" if "size" in way else left)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert len(read(ward, work, kept).examples) == 11
    assert len(kept) == 1


@pytest.mark.usefixtures("settled")
def test_a_file_that_was_taken_away_is_not_remembered(ward: Any) -> None:
    work, kept = ward.work(), {}
    read(ward, work, kept)
    (ward.folder / "cards.jsonl").unlink()
    with pytest.raises(DataError):
        read(ward, work, kept)
    assert kept == {}


def test_training_and_held_out_records_are_kept_apart(ward: Any) -> None:
    work, kept = ward.work(), {}
    assert [len(read(ward, work, kept, which=which).examples) for which in ("train", "held_out", "train")] == [
        12,
        6,
        12,
    ]


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
    assert [list(ids) for ids in read(ward, other, kept).examples.ids] != [list(ids) for ids in first.examples.ids]


@pytest.mark.parametrize("stage", ["../cards", "/etc/passwd", "a/b", "", ".", "..", "cards\n", "{stage}", "a" * 65])
def test_a_stage_cannot_lead_out_of_the_sites_folder(ward: Any, stage: str) -> None:
    with pytest.raises(WireError):
        read(ward, ward.work(), {}, stage=stage)


def test_no_held_out_records_are_an_error_that_says_so(ward: Any) -> None:
    work = ward.work()
    bare = ward.site.model_copy(update={"data": ward.site.data.model_copy(update={"held_out": ""})})
    with pytest.raises(DataError, match="no held_out records"):
        site_records(bare, "cards", "held_out", work, open_work(work.resident, work.task)[1], {})


def test_the_sites_file_says_how_its_text_files_are_written(ward: Any) -> None:
    rows = "text;label\nlost cärd;rates\n".encode("windows-1252")
    (ward.folder / "cards.csv").write_bytes(rows)
    told = {"train": str(ward.folder / "{stage}.csv"), "encoding": "windows-1252", "delimiter": ";"}
    site = ward.site.model_copy(update={"data": ward.site.data.model_copy(update=told)})
    work = ward.work()
    assert len(site_records(site, "cards", "train", work, open_work(work.resident, work.task)[1], {}).examples) == 1
    other = site.model_copy(update={"data": site.data.model_copy(update={"encoding": ""})})
    assert len(site_records(other, "cards", "train", work, open_work(work.resident, work.task)[1], {}).examples) == 0


def test_columns_of_the_file_are_mapped(ward: Any, small: Any) -> None:
    ward.write("cards.jsonl", [{"note": "lost card", "ward": "rates"}])
    data = ward.site.data.model_copy(update={"columns": {"text": "note", "label": "ward"}})
    work = ward.work()
    found = site_records(
        ward.site.model_copy(update={"data": data}), "cards", "train", work, open_work(work.resident, work.task)[1], {}
    )
    assert found.examples.targets.tolist() == [list(small.labels).index("rates")]


@pytest.mark.parametrize(("text", "said"), [("kaputte Karte", True), ("lost card kaputt", False)])
def test_texts_that_the_tokenizer_does_not_know_are_said_and_not_quoted(
    ward: Any, caplog: pytest.LogCaptureFixture, text: str, said: bool
) -> None:
    ward.write("cards.jsonl", [{"text": f"{text} {text}", "label": "rates"}] * 3)
    read(ward, ward.work(), {})
    assert ("does not know 67 % of the tokens of its records" in caplog.text) is said
    assert "kaputt" not in caplog.text


# -- whose records they are -------------------------------------------------------------------------------------------


def rows(*people: str) -> list[dict[str, str]]:
    """A record of each of these persons ("" has none)."""
    return [{"text": "lost card", "label": "rates"} | ({"person": person} if person else {}) for person in people]


def members(found: Any) -> list[list[int]]:
    return [unit.tolist() for unit in found.units.members]


def person_work(ward: Any) -> Any:
    return ward.work(plan={"unit": "person", "records_per_unit": 2})


def test_the_records_of_one_person_are_one_unit_and_the_name_stays_with_it(ward: Any) -> None:
    ward.write("cards.jsonl", rows("ann", "bob", "ann", "eve", "bob", "ann"))
    found = read(ward, person_work(ward), {})
    assert members(found) == [[0, 2, 5], [1, 4], [3]]
    assert found.names == ("ann", "bob", "eve")
    assert len(found.examples) == 6


SPELLINGS = [
    "Zoë Müller",
    "zoë müller",
    " Zoë Müller\t",
    "ZOË MÜLLER",
    "Zoe\u0308 Mu\u0308ller",
    "Ｚoë Müller",
    "Zoë\u00a0Müller",
]


def test_case_blanks_at_the_ends_and_forms_of_a_letter_do_not_make_another_person(ward: Any) -> None:
    """One person taken for two would be protected too little."""
    ward.write("cards.jsonl", rows(*SPELLINGS, "Zoe Müller", "Zoë Müller 2"))
    assert members(read(ward, person_work(ward), {})) == [list(range(len(SPELLINGS))), [7], [8]]


def test_another_spelling_in_another_stage_is_the_same_person(ward: Any) -> None:
    ward.write("cards.jsonl", rows("Zoë"))
    ward.write("loans.jsonl", rows("zoë ", "Max"))
    kept: Any = {}
    first, second = (read(ward, person_work(ward), kept, stage=stage).names for stage in ("cards", "loans"))
    assert set(first) < set(second)


def test_the_column_that_names_the_person_can_be_mapped(ward: Any) -> None:
    ward.write("cards.jsonl", [{"text": "x", "label": "rates", "patient_id": number} for number in (7, 8, 7)])
    ward.data = {"columns": {"person": "patient_id"}}
    found = read(ward, person_work(ward), {})
    assert (members(found), found.names) == ([[0, 2], [1]], ("7", "8"))


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the site's own log says."""
    return [record.getMessage() for record in caplog.records if record.name == "llmchain_fl.client"]


@pytest.mark.parametrize(
    ("people", "left"),
    [(["ann", ""], 1), (["", ""], 0), (["ann", "  "], 1), (["", "ann", "bob", ""], 2)],
)
@pytest.mark.parametrize("which", ["train", "held_out"])
def test_a_record_without_a_person_is_left_out_and_the_log_says_where_and_quotes_nothing(
    ward: Any, caplog: pytest.LogCaptureFixture, people: list[str], left: int, which: str
) -> None:
    ward.write("cards.jsonl", rows(*people))
    ward.write("cards.held_out.jsonl", rows(*people))
    found = read(ward, person_work(ward), {}, which=which)
    assert members(found) == [[i] for i in range(left)]
    said = "\n".join(told(caplog))
    gone = [place for place, person in enumerate(people, start=1) if not person.strip()]
    assert f"of {len(people)} records {len(gone)} left out" in said
    file = {"train": "cards.jsonl", "held_out": "cards.held_out.jsonl"}[which]
    assert all(f"{file}:{place}" in said for place in gone)
    assert "ann" not in said.replace(str(ward.folder), "")
    assert "lost card" not in said
    assert ("no record fits" in said) == (left == 0)


FAULTY = {
    "a foreign label": '{"text": "x", "label": "unheard"}',
    "no label": '{"text": "x"}',
    "an empty text": '{"text": " ", "label": "rates"}',
    "a broken line": '{"text": "unheard',
    "a line that is no object": "17",
    "a deep line": '{"text": ' + "[" * 3000 + "]" * 3000 + "}",
    "a long number": '{"text": ' + "9" * 5000 + "}",
}


@pytest.mark.parametrize("fault", FAULTY)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_record_that_does_not_fit_is_left_out_and_changes_nothing_about_the_others(
    ward: Any, caplog: pytest.LogCaptureFixture, fault: str, place: int
) -> None:
    good = [json.dumps(row) for row in ward.small.rows(2)]
    (ward.folder / "cards.jsonl").write_text("\n".join(good) + "\n")
    clean = read(ward, ward.work(), {})
    (ward.folder / "cards.jsonl").write_text("\n".join([*good[:place], FAULTY[fault], *good[place:]]) + "\n")
    found = read(ward, ward.work(), {})
    assert [ids.tolist() for ids in found.examples.ids] == [ids.tolist() for ids in clean.examples.ids]
    assert found.examples.targets.tolist() == clean.examples.targets.tolist()
    (said,) = told(caplog)
    assert "of 3 records 1 left out" in said
    assert f"cards.jsonl:{place + 1}" in said
    assert "unheard" not in said


def test_without_privacy_a_file_of_which_no_record_fits_is_an_error(ward: Any) -> None:
    ward.write("cards.jsonl", [{"text": "x", "label": "unheard"}])
    with pytest.raises(DataError, match="no record that fits") as caught:
        read(ward, ward.work(private=False), {})
    assert "unheard" not in str(caught.value)
    assert len(read(ward, ward.work(), {}).units) == 0  # with privacy it is nobody's business


@pytest.mark.parametrize("private", [True, False])
def test_without_persons_as_the_unit_no_column_has_to_name_them(ward: Any, private: bool) -> None:
    work = ward.work(private=private, plan={"unit": "record"})
    found = read(ward, work, {})
    assert members(found) == [[i] for i in range(12)]
    assert found.names == ()


@pytest.mark.parametrize("column", [True, False])
def test_where_each_person_has_one_record_each_record_is_a_person_without_a_name(ward: Any, column: bool) -> None:
    ward.data = {"one_record_per_person": True}
    ward.write("cards.jsonl", rows("ann", "bob", "eve") if column else rows("", "", ""))
    found = read(ward, person_work(ward), {})
    assert (members(found), found.names) == ([[0], [1], [2]], ())


def test_where_the_file_contradicts_the_declaration_the_person_is_protected_with_all_records_and_not_named(
    ward: Any, caplog: pytest.LogCaptureFixture
) -> None:
    ward.data = {"one_record_per_person": True}
    ward.write("cards.jsonl", rows("ann", "bob", "", "Ann"))
    assert members(read(ward, person_work(ward), {})) == [[0, 3], [1], [2]]
    (said,) = told(caplog)
    assert "holds somebody twice" in said
    assert "take one_record_per_person out of the site file" in said
    assert "ann" not in said.lower()


@pytest.mark.parametrize(
    ("unit", "people", "warned"),
    [
        ("record", ["ann", "bob", "ann"], True),
        ("record", ["ann", "", "ann"], True),
        ("record", ["ann", " Ann"], True),
        ("record", ["ann", "bob"], False),
        ("record", ["", ""], False),
        ("person", ["ann", "bob", "ann"], False),
        (None, ["ann", "bob", "ann"], False),
    ],
)
def test_the_sites_log_warns_when_records_are_protected_and_persons_have_several(
    ward: Any, caplog: pytest.LogCaptureFixture, unit: str | None, people: list[str], warned: bool
) -> None:
    ward.write("cards.jsonl", rows(*people))
    work = ward.work(private=unit is not None, plan={"unit": unit or "record"})
    read(ward, work, {})
    found = [record.getMessage() for record in caplog.records if record.name == "llmchain_fl.client"]
    assert len(found) == int(warned)
    assert all("one person has 2" in text and "ann" not in text for text in found)


def test_with_the_unit_site_persons_with_several_records_are_no_warning(
    ward: Any, caplog: pytest.LogCaptureFixture
) -> None:
    ward.write("cards.jsonl", rows("ann", "ann"))
    work = ward.work(plan={"unit": "site", "sampling_rate": 1.0, "steps_per_round": 1})
    assert members(read(ward, work, {})) == [[0], [1]]
    assert caplog.records == []


def test_records_that_were_read_as_such_are_not_taken_for_persons_later(ward: Any) -> None:
    """One process may serve a run with one unit and then a run with another."""
    ward.write("cards.jsonl", rows("ann", "bob", "ann"))
    kept: Any = {}
    assert len(read(ward, ward.work(plan={"unit": "record"}), kept).units) == 3
    assert len(read(ward, person_work(ward), kept).units) == 2
    assert len(read(ward, ward.work(private=False), kept).units) == 3
