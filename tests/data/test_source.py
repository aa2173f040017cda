"""Sources: what a setting names is loaded, drawn by seed, and mapped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmchain_fl.core.errors import ConfigError, DataError
from llmchain_fl.data.source import load_source, path_of, read_rows, resolve_site

datasets = pytest.importorskip("datasets")

CANARY = "zebra-4711"


@pytest.fixture
def ten(tmp_path: Path) -> str:
    path = tmp_path / "ten.jsonl"
    path.write_text("".join(json.dumps({"utterance": f"text {i}", "intent": i % 2}) + "\n" for i in range(10)))
    return str(path)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that ``load_dataset`` finds under the hub name org/name, and a cache of its own."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "org" / "name"
    folder.mkdir(parents=True)
    return folder


def test_rows_are_mapped_and_keep_their_lines(ten: str) -> None:
    mapping = {"text": "utterance", "label": "intent"}
    rows = read_rows(ten, mapping=mapping, required=("text", "label"), split="train", seed=0, size=3)
    assert len(rows) == 3
    assert rows.where == ten
    for record, place in zip(rows.records, rows.lines, strict=True):
        line = place.number
        assert record == {"text": f"text {line - 1}", "label": str((line - 1) % 2)}
    assert str(rows.lines[0]) == f"{ten}:{rows.lines[0].number}"


def test_a_size_draws_by_seed_without_replacement_in_order(ten: str) -> None:
    drawn = {seed: [r.line.number for r in load_source(ten, split="train", seed=seed, size=4)] for seed in range(30)}
    assert drawn[0] == [r.line.number for r in load_source(ten, split="train", seed=0, size=4)]
    assert all(lines == sorted(set(lines)) and len(lines) == 4 for lines in drawn.values())
    assert len({tuple(lines) for lines in drawn.values()}) > 10
    assert {line for lines in drawn.values() for line in lines} == set(range(1, 11))


@pytest.mark.parametrize(
    ("rows", "lines"),
    [("[:3]", [1, 2, 3]), ("[7:]", [8, 9, 10]), ("[2:4]", [3, 4]), ("[:]", list(range(1, 11))), ("[8:99]", [9, 10])],
)
def test_rows_of_a_source_are_counted_from_nought_and_keep_their_lines(ten: str, rows: str, lines: list[int]) -> None:
    assert [found.line.number for found in load_source(f"{ten}{rows}", split="train", seed=0, size=None)] == lines
    assert path_of(f"{ten}{rows}") == Path(ten)


def test_a_size_draws_among_the_named_rows_only(ten: str) -> None:
    drawn = {r.line.number for seed in range(20) for r in load_source(f"{ten}[4:8]", split="train", seed=seed, size=2)}
    assert drawn == {5, 6, 7, 8}


def test_two_parts_of_generated_records_share_none() -> None:
    first, rest = (load_source(f"generated:bank-messages{r}", split="test", seed=1, size=9) for r in ("[:50]", "[50:]"))
    assert {item.line.number for item in first} <= set(range(1, 51))
    assert {item.line.number for item in rest} <= set(range(51, 501))


def test_rows_that_are_not_there_are_refused_with_what_is(ten: str) -> None:
    with pytest.raises(DataError, match=r"(?s)has 10 records, none of them in these rows.*give other rows"):
        load_source(f"{ten}[10:]", split="train", seed=0, size=None)


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ("a.csv", Path("a.csv")),
        ("hub:org/name[:9]", None),
        ("generated:x", None),
        ("a[1].csv", Path("a[1].csv")),
        ("[0:1]", Path("[0:1]")),
    ],
)
def test_what_is_a_path_is_told_from_the_hub(spec: str, path: Path | None) -> None:
    assert path_of(spec) == path


@pytest.mark.parametrize("size", [10, 11, None])
def test_a_size_that_is_not_smaller_takes_all(ten: str, size: int | None) -> None:
    assert [r.line.number for r in load_source(ten, split="train", seed=0, size=size)] == list(range(1, 11))


def test_a_size_under_one_is_refused(ten: str) -> None:
    with pytest.raises(ConfigError, match="size is 0; it must be at least 1"):
        load_source(ten, split="train", seed=0, size=0)


def test_a_split_stands_in_a_path(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text(f"text\n{split}\n")
    spec = str(tmp_path / "{split}.csv")
    assert [load_source(spec, split=s, seed=0, size=None)[0].row["text"] for s in ("test", "train")] == [
        "test",
        "train",
    ]


def test_a_site_stands_in_a_path() -> None:
    assert resolve_site("data/{site}/{split}.csv", "north-1.b") == "data/north-1.b/{split}.csv"
    assert resolve_site("data/a.csv", "any / name") == "data/a.csv"


@pytest.mark.parametrize("site", ["..", ".", "a/b", "../b", "a\\b", "", "a\0", "a b", "a\n"])
def test_a_site_name_cannot_lead_out_of_its_folder(site: str) -> None:
    with pytest.raises(ConfigError, match="site name"):
        resolve_site("data/{site}.csv", site)


def test_a_site_that_was_never_put_in_is_a_fault_of_the_configuration() -> None:
    with pytest.raises(ConfigError, match=r"still holds \{site\}"):
        load_source("data/{site}.csv", split="train", seed=0, size=None)


def test_an_unknown_kind_of_source_is_a_missing_file() -> None:
    with pytest.raises(DataError, match="no such file"):
        load_source("hubb:org/name", split="train", seed=0, size=None)


def test_a_hub_data_set_is_loaded_by_datasets(hub: Path) -> None:
    (hub / "train.jsonl").write_text('{"text": "x"}\n{"text": "y"}\n')
    (hub / "test.jsonl").write_text('{"text": "z"}\n')
    records = load_source("hub:org/name", split="train", seed=0, size=None)
    assert [(r.row["text"], str(r.line)) for r in records] == [
        ("x", "hub:org/name[train]:1"),
        ("y", "hub:org/name[train]:2"),
    ]
    assert len(load_source("hub:org/name:default", split="test", seed=0, size=None)) == 1


@pytest.mark.parametrize(
    ("spec", "split"),
    [("hub:org/absent", "train"), ("hub:org/name", "dev"), ("hub:org/name:nope", "train"), ("hub:", "train")],
)
def test_a_hub_data_set_that_cannot_be_had_says_what_to_do(hub: Path, spec: str, split: str) -> None:
    (hub / "train.jsonl").write_text(f'{{"text": "{CANARY}"}}\n')
    with pytest.raises(DataError, match=f"{spec}: split '{split}' cannot be loaded") as caught:
        load_source(spec, split=split, seed=0, size=None)
    assert "save_to_disk" in str(caught.value)
    assert caught.value.__context__ is None


def test_a_damaged_hub_file_is_refused_without_its_text(hub: Path) -> None:
    (hub / "train.jsonl").write_text(f'{{"text": "{CANARY}"}}\n{{"text": {CANARY}\n')
    with pytest.raises(DataError, match="cannot be loaded") as caught:
        load_source("hub:org/name", split="train", seed=0, size=None)
    assert CANARY not in str(caught.value)


def test_generated_records_come_in_the_asked_size() -> None:
    rows = read_rows("generated:bank-messages", mapping={}, required=("text", "label"), split="train", seed=1, size=20)
    again = read_rows("generated:bank-messages", mapping={}, required=("text", "label"), split="train", seed=1, size=20)
    assert len(rows) == 20
    assert rows == again
    assert str(rows.lines[19]) == "generated:bank-messages[train]:20"


@pytest.mark.parametrize(("split", "count"), [("train", 2000), ("test", 500)])
def test_generated_records_without_a_size_come_in_the_usual_one(split: str, count: int) -> None:
    assert len(load_source("generated:bank-messages", split=split, seed=0, size=None)) == count


def test_generated_records_of_an_unknown_name_are_refused() -> None:
    with pytest.raises(DataError):
        load_source("generated:no-such-thing", split="train", seed=0, size=5)


SHARED = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not on this machine")
@pytest.mark.parametrize(
    ("spec", "count"),
    [
        ("banking77", 10003),
        ("sst2/train.csv", 6920),
        ("medical_abstracts", 2126),
        ("cl_benchmark/yelp_test.jsonl", 1250),
    ],
)
def test_public_data_sets_are_read_whole(spec: str, count: int) -> None:
    rows = read_rows(str(SHARED / spec), mapping={}, required=("text", "label"), split="train", seed=0)
    assert len(rows) == count
