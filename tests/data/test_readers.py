"""Readers: what a file holds comes out, and a fault names its line and never its text."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import itertools
import json
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from llmchain_fl.core.data.readers import READERS
from llmchain_fl.core.data.rows import Located
from llmchain_fl.core.data.tables import MOST_CHARACTERS
from llmchain_fl.core.errors import DataError
from llmchain_fl.data.json_file import read_text
from llmchain_fl.data.source import load_source

CANARY = "zebra-4711"
CELLS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


def read_records(path: Path, *, split: str = "train") -> list[Located]:
    return load_source(str(path), split=split, seed=0, size=None)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def fault_of(call: Callable[[], object]) -> str:
    """The message of the DataError; nothing that travels with it may hold the canary."""
    with pytest.raises(DataError) as caught:
        call()
    error: BaseException | None = caught.value
    assert CANARY not in "".join(traceback.format_exception(caught.value, chain=True))
    while error is not None:
        assert CANARY not in repr(vars(error)) + repr(error.args)
        error = error.__cause__ or error.__context__
    return str(caught.value)


# name of the file, its bytes, what the message must hold
BAD_FILES: list[tuple[str, bytes, list[str]]] = [
    ("a.jsonl", f'{{"text": "{CANARY}"}}\n{{"text": "{CANARY}'.encode(), [":2:", "not a JSON object"]),
    ("a.jsonl", f'\n\n["{CANARY}"]\n'.encode(), [":3:", "not a JSON object"]),
    ("a.jsonl", f'"{CANARY}"'.encode(), [":1:", "not a JSON object"]),
    ("a.jsonl", b'{"a": ' * 100_000, [":1:", "not a JSON object"]),
    ("a.jsonl", f'{{"text": "{CANARY}", "n": {"9" * 5000}}}'.encode(), [":1:", "not a JSON object"]),
    ("a.json", f'[\n{{"text": "{CANARY}"}}'.encode(), ["a.json: ", "well-formed JSON array: element 1"]),
    ("a.json", f'[{{"text": "x"}}, {CANARY}]'.encode(), ["well-formed JSON array: element 2"]),
    ("a.json", f'[{{"text": "x"}}\n] {CANARY}'.encode(), ["behind its JSON array"]),
    ("a.json", f'[{{"text": "x"}},\n"{CANARY}"]'.encode(), [":2:", "element is not a JSON object"]),
    ("a.json", b"[]", ["holds no record"]),
    ("a.csv.gz", gzip.compress(f"text\n{CANARY}\n".encode(), mtime=0)[:-9], ["a.csv.gz", "cannot be read as a file"]),
    ("a.csv.gz", CANARY.encode(), ["cannot be read as a file"]),
    ("a.parquet.gz", CANARY.encode(), ["not a readable Parquet"]),
    ("a.xlsx", CANARY.encode(), ["not a readable Excel workbook"]),
    ("a.jsonl", b'{"text": "x"}\n' + CANARY.encode() + b"\xff\n", [":2:", "not UTF-8"]),
    ("a.csv", f"text,label\n{CANARY},{CANARY}".encode("utf-16"), [":1:", "not UTF-8"]),
    ("a.csv", f"text,label\nx,{CANARY}\n{CANARY},a,b\n".encode(), [":3:", "3 fields, the header has 2"]),
    ("a.csv", f'text,label\n"two\nlines",a\n{CANARY}\n'.encode(), [":4:", "1 fields, the header has 2"]),
    ("a.csv", f'text,label\nx,a\n"{CANARY}\nx,b\nx,c\n'.encode(), [":3:", "unclosed quote"]),
    ("a.csv", f'text,label\n"{CANARY}" x,a\n'.encode(), [":2:", "stray"]),
    ("a.csv", f"text,label\n{CANARY}{'x' * MOST_CHARACTERS},a\n".encode(), [":2:", "1,048,576"]),
    ("a.csv", f"{CANARY},b,{CANARY}\n".encode(), [":1:", "column 3 of 3", "header line"]),
    ("a.tsv", f"text\tlabel\n{CANARY}\n".encode(), [":2:", "1 fields, the header has 2"]),
    ("a.tsv", f'text\tlabel\n"{CANARY}\n{CANARY}"\ta\n'.encode(), [":2:", "1 fields, the header has 2"]),
    ("a.parquet", CANARY.encode(), ["a.parquet", "not a readable Parquet"]),
    ("a.parquet", b"PAR1" + CANARY.encode() + b"PAR1", ["not a readable Parquet"]),
    ("a.jsonl", b"", ["holds no record"]),
    ("a.jsonl", b"\xef\xbb\xbf\n \n\n", ["holds no record"]),
    ("a.csv", b"text,label\n", ["holds no record"]),
    ("a.doc", CANARY.encode(), ["'.doc'", ".jsonl", ".parquet"]),
    ("a", CANARY.encode(), ["''", ".jsonl"]),
]


@pytest.mark.parametrize(("name", "content", "expected"), BAD_FILES)
def test_a_bad_file_is_refused_with_its_line_and_without_its_text(
    tmp_path: Path, name: str, content: bytes, expected: list[str]
) -> None:
    message = fault_of(lambda: read_records(write(tmp_path / name, content)))
    assert all(part in message for part in [*expected, "->", name]), message


def test_a_missing_file_names_the_nearest_file_that_is_there(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", "{}")
    assert f"did you mean {tmp_path / 'train.jsonl'}?" in fault_of(lambda: read_records(tmp_path / "trian.jsonl"))
    assert f"{tmp_path} holds train.jsonl" in fault_of(lambda: read_records(tmp_path / "q.csv"))


def test_a_missing_parquet_file_is_missing_and_not_damaged(tmp_path: Path) -> None:
    assert "is empty" in fault_of(lambda: read_records(tmp_path / "a.parquet"))


def test_a_missing_folder_names_the_part_of_the_path_that_exists(tmp_path: Path) -> None:
    assert f"exists up to {tmp_path}, and no further" in fault_of(lambda: read_records(tmp_path / "no" / "a.csv"))


def test_a_relative_path_into_nowhere_is_a_missing_file() -> None:
    assert "no such file" in fault_of(lambda: read_records(Path("no-such-folder/a.csv")))


def test_a_file_that_may_not_be_opened_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.csv", "text\nx\n")

    def refuse(*_: object) -> int:
        raise PermissionError(CANARY)

    monkeypatch.setattr("llmchain_fl.core.regular_file.os.open", refuse)
    assert "cannot be read" in fault_of(lambda: read_text(path))
    assert "cannot be read" in fault_of(lambda: read_records(path))


def test_a_json_record_knows_its_line_past_blank_lines_and_line_separators(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '\ufeff{"text": "a\u2028b"}\r\n\n{"text": "c", "n": 1}')
    records = read_records(path)
    assert [(r.row, r.line.number, str(r.line)) for r in records] == [
        ({"text": "a\u2028b"}, 1, f"{path}:1"),
        ({"text": "c", "n": 1}, 3, f"{path}:3"),
    ]


def test_a_csv_record_knows_the_line_on_which_it_starts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", '\ufefftext, label\n"two\nlines",a\n\n"a ""b"", c",d\r\nlast,e')
    assert [(r.row["text"], r.row["label"], r.line.number) for r in read_records(path)] == [
        ("two\nlines", "a", 2),
        ('a "b", c', "d", 5),
        ("last", "e", 6),
    ]


def test_a_quote_in_tsv_is_a_character(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", 'text\tlabel\n"Why?\ta\nhe said "no"\tb\n')
    assert [(r.row["text"], r.line.number) for r in read_records(path)] == [('"Why?', 2), ('he said "no"', 3)]


def test_a_suffix_may_be_in_capitals(tmp_path: Path) -> None:
    assert len(read_records(write(tmp_path / "A.CSV", "text\nx\n"))) == 1


def test_parquet_counts_rows_and_keeps_types(tmp_path: Path) -> None:
    folder = tmp_path / "site=a"  # a hive-style folder name must not become a column
    folder.mkdir()
    parquet.write_table(pyarrow.table({"text": ["x", None], "n": [1, 2]}), folder / "a.parquet")
    records = read_records(folder / "a.parquet")
    assert [(r.row, r.line.number) for r in records] == [({"text": "x", "n": 1}, 1), ({"text": None, "n": 2}, 2)]


@pytest.mark.parametrize("metadata", [b"no json", b"\xff", b"[]", b'{"info": 1}', b'{"info": {"features": [1]}}'])
def test_strange_parquet_metadata_changes_nothing(tmp_path: Path, metadata: bytes) -> None:
    table = pyarrow.table({"label": [1]}).replace_schema_metadata({b"huggingface": metadata})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert read_records(tmp_path / "a.parquet")[0].row == {"label": 1}


@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8))
def test_any_text_survives_csv_and_json_lines(
    rows: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    table = io.StringIO(newline="")
    csv.writer(table, quoting=csv.QUOTE_ALL).writerows([("text", "label"), *rows])
    write(folder / "a.csv", table.getvalue())
    write(folder / "a.jsonl", "\n".join(json.dumps(dict(zip(("text", "label"), row, strict=True))) for row in rows))
    for name in ("a.csv", "a.jsonl"):
        records = read_records(folder / name)
        assert [(r.row["text"], r.row["label"]) for r in records] == rows
        assert all(a.line.number < b.line.number for a, b in itertools.pairwise(records))


@given(content=st.binary(max_size=60), suffix=st.sampled_from(sorted(READERS)))
def test_any_bytes_are_read_or_refused_and_nothing_else(
    content: bytes, suffix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write(tmp_path_factory.mktemp("bytes") / f"a.{suffix}", content)
    with contextlib.suppress(DataError):
        assert read_records(path)


def test_reading_text_files_does_not_import_datasets_or_pyarrow() -> None:
    code = (
        "import sys, llmchain_fl.core.data.source; print(sorted({'datasets', 'pyarrow', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_text_file_is_one_document_a_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbffirst one \r\n\n  \nsecond\xe2\x80\xa8still second")
    found = read_records(path)
    assert [record.row for record in found] == [{"text": "first one"}, {"text": "second\u2028still second"}]
    assert [str(record.line) for record in found] == [f"{path}:1", f"{path}:4"]


def test_in_a_directory_text_files_count_only_where_there_is_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "train.txt", b"a document\n")
    assert [record.row for record in read_records(tmp_path)] == [{"text": "a document"}]
    write(tmp_path / "train.jsonl", b'{"text": "a record"}\n')
    assert [record.row for record in read_records(tmp_path)] == [{"text": "a record"}]
