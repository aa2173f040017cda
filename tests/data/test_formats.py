"""Files as hospitals have them: packed, from Excel, with semicolons and Latin-1, nested, large; a site's own rules."""

from __future__ import annotations

import datetime
import gzip
import json
import logging
import sys
from decimal import Decimal
from importlib.metadata import EntryPoint
from pathlib import Path

import openpyxl
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from llmchain_fl.core import plugins
from llmchain_fl.core.data.lines import NOT_TEXT
from llmchain_fl.core.data.readers import Dialect
from llmchain_fl.core.data.rows import Found
from llmchain_fl.core.data.source import read_fitting
from llmchain_fl.core.data.tables import delimiter_of
from llmchain_fl.core.errors import ConfigError, DataError
from llmchain_fl.data.numbered import number_rows
from llmchain_fl.data.source import load_source, read_rows

CANARY = "zebra-4711"


def texts(path: Path, split: str = "train") -> list[object]:
    return [record.row["text"] for record in load_source(str(path), split=split, seed=0, size=None)]


def fitting(path: Path, dialect: Dialect = Dialect(), **mapping: str) -> list[dict[str, str]]:  # noqa: B008
    return read_fitting(str(path), mapping=mapping, required=("text",), dialect=dialect)[0].records


# -- packed -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.csv.gz", "text\nx\n"),
        ("train.tsv.GZ", "text\tn\nx\t1\n"),
        ("train.jsonl.gz", '{"text": "x"}\n'),
        ("train.json.gz", '[{"text": "x"}]'),
        ("train.txt.gz", "x\n"),
    ],
)
def test_a_packed_text_file_is_read_as_it_is_alone_and_in_a_directory(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(content.encode()))
    assert texts(tmp_path / name) == texts(tmp_path) == ["x"]
    assert [record["text"] for record in fitting(tmp_path / name)] == ["x"]


# -- dialects ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "delimiter"),
    [
        ("text,label", ","),
        ("text;label", ";"),
        ("text\tlabel\tperson", "\t"),
        ("text|label", "|"),
        ('"text;with;these",label', ","),
        ('"text, with these";label', ";"),
        ("text", ","),
        ("", ","),
        ("a,b;c", ","),
        ('"open;open,', ","),
    ],
)
def test_the_delimiter_is_the_one_that_the_header_has_most_of_outside_quotes(header: str, delimiter: str) -> None:
    assert delimiter_of(header) == delimiter


LATIN = "text;größe\nMüller’s;3\n".encode("windows-1252")


def test_a_public_file_from_windows_is_read_and_one_line_says_how(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.csv").write_bytes(LATIN)
    (tmp_path / "b.csv").write_bytes("text,n\nMüller,3\n".encode("latin-1"))
    (tmp_path / "c.csv").write_text("text,n\nMüller,3\n", encoding="utf-8")
    (tmp_path / "d.txt").write_bytes("Müller\n".encode("latin-1"))
    with caplog.at_level(logging.WARNING, "llmchain_fl.data"):
        found = load_source(str(tmp_path / "a.csv"), split="train", seed=0, size=None)
        assert [texts(tmp_path / name) for name in ("b.csv", "c.csv", "d.txt")] == [["Müller"]] * 3
    assert found[0].row == {"text": "Müller’s", "größe": "3"}
    assert [record.getMessage().removeprefix(f"{tmp_path}/") for record in caplog.records] == [
        "a.csv: read as windows-1252 with ';'",
        "b.csv: read as windows-1252 with ','",
    ]


def test_at_a_site_the_header_or_the_owner_decides_how_a_file_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(LATIN)  # its header is not UTF-8
    assert fitting(path) == [{"text": "Müller’s", "größe": "3"}]
    path.write_bytes("text;n\nMüller;3\nx;4\n".encode("latin-1"))  # its header is
    rows, left = read_fitting(str(path), mapping={}, required=("text",))
    assert ([row["text"] for row in rows.records], dict(left.counts)) == (["x"], {f"line {NOT_TEXT}": 1})
    assert [row["text"] for row in fitting(path, Dialect("latin-1"))] == ["Müller", "x"]
    assert [row["text"] for row in fitting(path, Dialect("windows-1252", ";"))] == ["Müller", "x"]
    with pytest.raises(DataError, match="no column 'text'"):
        fitting(path, Dialect("latin-1", ","))


ROWS = st.lists(st.sampled_from([b"x;1", b"y,2", "ä;3".encode(), "ä;3".encode("latin-1"), b"\x81;4", b"z\t5"]))
HEADERS = st.sampled_from([b"text;n", b"text,n", "text;größe".encode("latin-1"), "text;größe".encode()])


@given(header=HEADERS, rows=ROWS, told=st.sampled_from([Dialect(), Dialect("latin-1"), Dialect("", ";")]))
@pytest.mark.thorough
def test_no_record_decides_how_another_one_is_read(
    header: bytes, rows: list[bytes], told: Dialect, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("law") / "a.csv"

    def kept(chosen: list[bytes]) -> list[dict[str, str]]:
        path.write_bytes(b"\n".join([header, *chosen]) + b"\n")
        try:
            return fitting(path, told)
        except DataError:  # by the header: whatever the rows are
            return [{"text": "refused"}]

    if kept([]) == [{"text": "refused"}]:
        assert kept(rows) == kept([])
        return
    assert kept(rows) == [record for row in rows for record in kept([row])]


# -- JSON arrays, nested columns, large fields, decimals --------------------------------------------------------------


def test_a_json_array_is_its_objects_by_number(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"text": "x"}, {"text": "y]},{"}], indent=2))
    found = load_source(str(path), split="train", seed=0, size=None)
    assert [(item.row["text"], str(item.line)) for item in found] == [("x", f"{path}:1"), ("y]},{", f"{path}:2")]
    path.write_text('\ufeff\n [{"text": "x"}, 3, {"text": "z"}, ["w"]] \n', encoding="utf-8")
    rows, left = read_fitting(str(path), mapping={}, required=("text",))
    assert [row["text"] for row in rows.records] == ["x", "z"]
    assert dict(left.counts) == {"element is not a JSON object": 2}
    path.write_text('{"text": "x"}\n{"text": "y"}\n')
    assert texts(path) == ["x", "y"]


def test_a_part_of_a_nested_column_is_named_by_its_path(tmp_path: Path) -> None:
    rows = [{"note": {"body": "x", "ward": {"name": "a"}}}, {"note.body": "own", "note": {"body": "y"}}, {"note": 1}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [row["text"] for row in fitting(tmp_path / "a.jsonl", text="note.body")] == ["x", "own"]
    parquet.write_table(pyarrow.Table.from_pylist(rows[:1]), tmp_path / "a.parquet")
    mapping = {"text": "note.body", "label": "note.ward.name"}
    found = read_rows(str(tmp_path / "a.parquet"), mapping=mapping, required=("text", "label"), split="train", seed=0)
    assert found.records == [{"text": "x", "label": "a"}]
    with pytest.raises(DataError, match=r"no column 'remark\.body' \(for 'text'\)"):
        fitting(tmp_path / "a.parquet", text="remark.body")


def test_a_parquet_struct_that_is_null_or_holds_what_is_no_text_is_a_fault_of_its_record(tmp_path: Path) -> None:
    kind = pyarrow.struct([("body", pyarrow.string()), ("at", pyarrow.timestamp("s"))])
    column = pyarrow.array([{"body": "x", "at": 0}, None, {"body": None, "at": 2**50}], kind)
    parquet.write_table(pyarrow.table({"note": column}), tmp_path / "a.parquet")
    assert fitting(tmp_path / "a.parquet", text="note.body") == [{"text": "x"}]
    assert fitting(tmp_path / "a.parquet", text="note.at") == []


def test_a_field_may_be_longer_than_the_csv_module_takes(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f'text,n\n"{"word " * 100_000}",1\n')
    assert len(str(texts(tmp_path / "a.csv")[0])) == 500_000


@pytest.mark.parametrize(
    ("cell", "text"),
    [("3", "3"), ("3.00", "3"), ("-0.50", "-0.5"), ("0.10", "0.1"), ("1e20", str(10**20)), ("0", "0")],
)
def test_a_decimal_is_the_number_as_it_is_spelled_shortest(tmp_path: Path, cell: str, text: str) -> None:
    column = pyarrow.array([Decimal(cell), None], pyarrow.decimal128(38, 10))
    parquet.write_table(pyarrow.table({"text": ["x", "y"], "label": column}), tmp_path / "a.parquet")
    rows, left = read_fitting(str(tmp_path / "a.parquet"), mapping={}, required=("text", "label"))
    assert ([row["label"] for row in rows.records], left.total) == ([text], 1)


# -- Parquet with a damaged column ------------------------------------------------------------------------------------


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A file whose column "scan" has pages that cannot be read."""
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"text": ["x", "y"], "scan": ["SCAN-PAGE-1", "SCAN-PAGE-2"]})
    parquet.write_table(table, path, compression="none", use_dictionary=False)
    whole = path.read_bytes()
    at = whole.index(b"SCAN-PAGE-1") - 4
    path.write_bytes(whole[:at] + b"\xff\xff\xff\x7f" + whole[at + 4 :])
    return path


def test_a_damaged_column_that_nobody_asks_for_is_left_out(damaged: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert fitting(damaged) == [{"text": "x"}, {"text": "y"}]
    assert "1 of 2 columns are damaged and left out" in caplog.text
    assert texts(damaged) == ["x", "y"]


def test_a_damaged_column_that_is_asked_for_is_a_fault_of_the_file(damaged: Path) -> None:
    with pytest.raises(DataError, match="the column for 'label' is damaged"):
        fitting(damaged, label="scan")
    with pytest.raises(DataError, match="the column for 'label' is damaged"):
        read_rows(str(damaged), mapping={"label": "scan"}, required=("text", "label"), split="train", seed=0)


# -- directories ------------------------------------------------------------------------------------------------------


def test_folders_may_be_named_for_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for number in (2, 1):
            (tmp_path / split / f"part-{number}.csv").write_text(f"text\n{split} {number}\n")
    (tmp_path / "labels.json").write_text('["a"]')
    assert texts(tmp_path) == ["train 1", "train 2"]
    assert texts(tmp_path, "test") == ["test 1", "test 2"]
    with pytest.raises(DataError, match=r"no split 'dev'\n.*it has test, train"):
        texts(tmp_path, "dev")


# -- Excel ------------------------------------------------------------------------------------------------------------


def workbook(path: Path, *rows: list[object]) -> Path:
    book = openpyxl.Workbook()
    for row in rows:
        book.worksheets[0].append(row)
    book.create_sheet("notes").append([CANARY])
    book.save(path)
    return path


def test_a_workbook_is_the_rows_of_its_first_sheet(tmp_path: Path) -> None:
    day = datetime.datetime(2026, 1, 2)
    path = workbook(
        tmp_path / "a.xlsx",
        [None, None, None],
        ["text", " label ", None],
        ["x", 3, "aside"],
        [None, None, None],
        ["y", 2.5, None],
        [day, True, None],
    )
    found = load_source(str(path), split="train", seed=0, size=None)
    assert [(item.row, item.line.number) for item in found] == [
        ({"text": "x", "label": 3}, 3),
        ({"text": "y", "label": 2.5}, 5),
        ({"text": day, "label": True}, 6),
    ]
    rows, left = read_fitting(str(path), mapping={}, required=("text", "label"))
    assert rows.records == [{"text": "x", "label": "3"}, {"text": "y", "label": "2.5"}]
    assert dict(left.counts) == {"a column 'text' that is no text": 1}


def test_without_openpyxl_an_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = workbook(tmp_path / "a.xlsx", ["text"], ["x"])
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(ConfigError, match=r"pip install 'llmchain-fl\[files\]'"):
        texts(path)


def test_a_workbook_without_a_row_holds_no_record(tmp_path: Path) -> None:
    assert fitting(workbook(tmp_path / "a.xlsx")) == []


# -- readers of other packages ----------------------------------------------------------------------------------------


def read_notes(path: Path, dialect: Dialect) -> Found:
    """A reader as another package may have it."""
    return Found(str(path), ("text",), number_rows([{"text": path.read_text()}], str(path)))


def test_a_reader_of_another_package_is_used_at_a_site_only_where_its_file_allows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = EntryPoint("note", f"{__name__}:read_notes", "llmchain_fl.readers")
    monkeypatch.setattr(EntryPoint, "load", lambda self: read_notes)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry] if group == "llmchain_fl.readers" else [])
    (tmp_path / "a.note").write_text("x")
    assert texts(tmp_path / "a.note") == texts(tmp_path) == ["x"]
    with pytest.raises(ConfigError, match=r'limits\.plugins = \["readers:note"\]'):
        fitting(tmp_path / "a.note")
    rows, _ = read_fitting(str(tmp_path / "a.note"), mapping={}, required=("text",), allowed=["readers:note"])
    assert rows.records == [{"text": "x"}]
    (tmp_path / "b.doc").write_text("x")
    with pytest.raises(DataError, match=r"\.txt, \.note"):
        texts(tmp_path / "b.doc")
