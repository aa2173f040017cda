"""Directories: the split that was asked for is read, and never another one."""

from __future__ import annotations

from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from llmchain_fl.core.data.rows import Located
from llmchain_fl.core.data.source import read_fitting
from llmchain_fl.core.errors import DataError
from llmchain_fl.data.source import load_source

datasets = pytest.importorskip("datasets")


def read_records(path: Path, *, split: str = "train") -> list[Located]:
    return load_source(str(path), split=split, seed=0, size=None)


def fill(folder: Path, *names: str) -> Path:
    """CSV, JSON lines or Parquet files of one record each, its text the file's name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name.endswith(".parquet"):
            parquet.write_table(pyarrow.table({"text": [name]}), folder / name)
        else:
            (folder / name).write_text(f'{{"text": "{name}"}}' if name.endswith(".jsonl") else f"text\n{name}\n")
    return folder


def texts(folder: Path, split: str) -> list[object]:
    return [record.row["text"] for record in read_records(folder, split=split)]


@pytest.fixture
def labelled() -> object:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    return datasets.Dataset.from_dict({"text": ["x", "y", "z"], "label": [1, 0, -1]}, features=features)


def test_a_saved_dataset_holds_label_names_again(tmp_path: Path, labelled: object) -> None:
    labelled.save_to_disk(str(tmp_path / "one"))  # type: ignore[attr-defined]
    records = read_records(tmp_path / "one", split="test")
    assert [(r.row, r.line.number) for r in records] == [
        ({"text": "x", "label": "yes"}, 1),
        ({"text": "y", "label": "no"}, 2),
        ({"text": "z", "label": None}, 3),
    ]


def test_a_parquet_file_of_datasets_holds_label_names_again(tmp_path: Path, labelled: object) -> None:
    labelled.to_parquet(str(tmp_path / "a.parquet"))  # type: ignore[attr-defined]
    assert [record.row["label"] for record in read_records(tmp_path / "a.parquet")] == ["yes", "no", None]


def test_a_saved_dataset_dict_gives_the_split_or_names_those_it_has(tmp_path: Path) -> None:
    splits = {name: datasets.Dataset.from_dict({"text": [name]}) for name in ("train", "test")}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "two"))
    assert texts(tmp_path / "two", "train") == ["train"]
    assert texts(tmp_path / "two", "test") == ["test"]
    with pytest.raises(DataError, match=r"no split 'tests'\n.*did you mean 'test'\? it has train, test"):
        read_records(tmp_path / "two", split="tests")


def test_a_damaged_saved_dataset_is_refused(tmp_path: Path, labelled: object) -> None:
    labelled.save_to_disk(str(tmp_path / "one"))  # type: ignore[attr-defined]
    next((tmp_path / "one").glob("*.arrow")).write_bytes(b"zebra-4711")
    with pytest.raises(DataError, match="no data set can be loaded") as caught:
        read_records(tmp_path / "one")
    assert "zebra" not in str(caught.value)


def test_a_saved_dataset_without_rows_is_refused(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": []}).save_to_disk(str(tmp_path / "none"))
    with pytest.raises(DataError, match="holds no record"):
        read_records(tmp_path / "none")
    assert len(read_fitting(str(tmp_path / "none"), mapping={}, required=("text",))[0]) == 0


@pytest.mark.parametrize(
    ("names", "split", "expected"),
    [
        (["train.csv", "test.csv", "labels.json", "README.md"], "train", ["train.csv"]),
        (["en_train.jsonl", "en_test.jsonl"], "test", ["en_test.jsonl"]),
        (["train-00001-of-2.parquet", "train-00000-of-2.parquet", "test-0.parquet"], "train", None),
        (["dev.csv", "train.csv"], "validation", ["dev.csv"]),
        (["valid.csv", "train.csv"], "dev", ["valid.csv"]),
        (["latest.csv", "test.csv", "trainer.csv"], "test", ["test.csv"]),
        (["holdout.csv", "train.csv"], "holdout", ["holdout.csv"]),
        (["part-0.jsonl", "part-1.jsonl"], "train", ["part-0.jsonl", "part-1.jsonl"]),
    ],
)
def test_the_files_of_a_split_are_those_whose_names_say_so(
    tmp_path: Path, names: list[str], split: str, expected: list[str] | None
) -> None:
    folder = fill(tmp_path / "d", *names)
    assert texts(folder, split) == (expected or ["train-00000-of-2.parquet", "train-00001-of-2.parquet"])


def test_files_may_lie_in_a_data_folder_as_on_the_hub(tmp_path: Path) -> None:
    fill(tmp_path / "d" / "data", "train.jsonl", "test.jsonl")
    assert texts(tmp_path / "d", "test") == ["test.jsonl"]


@pytest.mark.parametrize(
    ("names", "split", "message"),
    [
        (["train.csv", "train.jsonl"], "train", r"2 formats: \.csv, \.jsonl"),
        (["train.csv", "dev.csv"], "test", "no split 'test'\n.*it has train, validation"),
        (["part-0.csv"], "test", "no split 'test'\n.*it has train"),
        (["test.csv", "notes.csv"], "train", "no split 'train'\n.*it has test"),
        (["README.md"], "train", "no file of records"),
        ([], "train", "no file of records"),
    ],
)
def test_a_directory_without_the_split_is_refused(tmp_path: Path, names: list[str], split: str, message: str) -> None:
    folder = fill(tmp_path / "d", *names)
    with pytest.raises(DataError, match=message) as caught:
        read_records(folder, split=split)
    assert str(folder) in str(caught.value)


def test_a_fault_in_a_directory_names_the_file_and_the_line(tmp_path: Path) -> None:
    folder = fill(tmp_path / "d", "train-0.jsonl")
    (folder / "train-1.jsonl").write_text('{"text": "x"}\nzebra-4711\n')
    with pytest.raises(DataError) as caught:
        read_records(folder)
    assert f"{folder / 'train-1.jsonl'}:2: " in str(caught.value)
    assert "zebra" not in str(caught.value)
