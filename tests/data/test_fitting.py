"""What a site reads: every record that fits, whatever stands beside it, and a count of the others."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from llmchain_fl.core.data.columns import only_labels
from llmchain_fl.core.data.lines import NOT_TEXT
from llmchain_fl.core.data.rows import LeftOut, Line, Rows
from llmchain_fl.core.data.source import read_fitting
from llmchain_fl.core.data.tables import MOST_CHARACTERS
from llmchain_fl.core.errors import ConfigError, DataError

CANARY = "zebra-4711"
REQUIRED = ("text", "label")

GOOD_JSON = st.builds(
    lambda text, label, more: json.dumps({"text": text, "label": label, **more}).encode(),
    st.text(min_size=1, max_size=5),
    st.sampled_from(["a", "b", 1, 2.0, True]),
    st.dictionaries(st.sampled_from(["person", "x"]), st.none() | st.text(max_size=3), max_size=2),
)
BAD_JSON = st.sampled_from(
    [
        b"[]",
        b"{",
        b'"x"',
        b"[" * 3000,
        b'{"text": ' + b"9" * 5000 + b"}",
        b'{"text": "x", "label": NaN}',
        b'{"text": "x\xff", "label": "a"}',
        b'{"text": "\\ud83d", "label": "a"}',
        b'{"text": "\x00", "label": "a"}',
        b'{"label": "a"}',
        b'{"text": ["x"], "label": "a"}',
        b'{"text": " ", "label": "a"}',
        b"\x00",
        b"\xef\xbb\xbf{}",
        b"\xed\xa0\x80",
    ]
)
JSON = GOOD_JSON | BAD_JSON | st.binary(max_size=12).map(lambda data: data.replace(b"\n", b" "))
CSV = st.sampled_from(
    [
        b"x,a,p",
        b'"x, y",a,p',
        b'"two\nlines",b,p',
        b'"quoted ""word""",b,p',
        b'5" pipe,a,p',
        b'"he said "no"",a,p',
        b"only,two",
        b"one,too,many,fields",
        b",a,p",
        b"\xff,a,p",
        b'"\xff\n",a,p',
        b"x" * (MOST_CHARACTERS + 1) + b",a,p",
        b"\x00,a,",
        b" ",
        b"",
    ]
)
TSV = st.binary(max_size=12).map(lambda data: data.replace(b"\n", b" ").replace(b"\r", b" ")) | CSV.map(
    lambda row: row.replace(b",", b"\t").replace(b"\n", b" ")
)
CELLS = st.none() | st.binary(max_size=4) | st.sampled_from([b"a", b"b", b"ok", b"\xff"])
LINES: dict[str, tuple[bytes, st.SearchStrategy[bytes]]] = {
    ".jsonl": (b"", JSON),
    ".csv": (b"text,label,person\n", CSV),
    ".tsv": (b"text\tlabel\tperson\n", TSV),
}


def fitting(path: Path) -> tuple[list[dict[str, str]], LeftOut]:
    rows, left = read_fitting(str(path), mapping={}, required=REQUIRED)
    return rows.records, left


def kept_of(path: Path, write: Callable[[Sequence[object]], None], records: Sequence[object]) -> list[dict[str, str]]:
    write(records)
    kept, left = fitting(path)
    assert CANARY not in str(left)
    return kept


def law(path: Path, write: Callable[[Sequence[object]], None], records: Sequence[object]) -> None:
    """What is kept of all is what is kept of each alone; so one more or less changes no other."""
    alone = [kept_of(path, write, [record]) for record in records]
    assert all(len(kept) <= 1 for kept in alone)
    assert kept_of(path, write, records) == [record for kept in alone for record in kept]


@pytest.mark.parametrize("suffix", LINES)
@given(data=st.data())
def test_which_records_are_kept_does_not_depend_on_the_others(
    suffix: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    head, strategy = LINES[suffix]
    path = tmp_path_factory.mktemp("law") / f"a{suffix}"
    end = data.draw(st.sampled_from([b"\n", b"\r\n"]))
    law(
        path,
        lambda lines: (
            path.write_bytes(head + b"".join(line + end for line in lines if isinstance(line, bytes))),
            None,
        )[1],
        data.draw(st.lists(strategy, max_size=5)),
    )


@given(rows=st.lists(st.tuples(CELLS, CELLS), max_size=5), encoded=st.booleans())
def test_in_parquet_neither(
    rows: list[tuple[bytes | None, bytes | None]], encoded: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("law") / "a.parquet"

    def write(chosen: Sequence[object]) -> None:
        columns = {}
        for at, name in enumerate(REQUIRED):
            raw = pyarrow.array([row[at] for row in chosen if isinstance(row, tuple)], pyarrow.binary())
            column = raw.view(pyarrow.string())
            columns[name] = column.dictionary_encode() if encoded and len(column) else column
        parquet.write_table(pyarrow.table(columns), path)

    law(path, write, rows)


FAULTY: list[tuple[str, bytes, int, dict[str, int]]] = [
    ("a.jsonl", b'[]\n{"text": "x", "label": "a"}\n{\n', 1, {"line is not a JSON object": 2}),
    ("a.jsonl", b'{"text": "x\xff", "label": "a"}\n{"text": "x", "label": "a"}\n', 1, {f"line {NOT_TEXT}": 1}),
    ("a.jsonl", b'{"text": "x"}\n{"label": "a"}\n', 0, {"a column 'label' that is empty or missing": 1,
                                                         "a column 'text' that is empty or missing": 1}),
    ("a.jsonl", b'{"text": "\\ud83d", "label": "a"}\n', 0, {"a column 'text' that is no text": 1}),
    ("a.csv", b'text,label\nx,a\n"no "quote"",a\nx,a,b\n,a\n', 1,
     {"line has a stray quote": 1, "line has another number of fields than the header": 1,
      "a column 'text' that is empty or missing": 1}),
    ("a.csv", b"text,label\n", 0, {}),
    ("a.csv", b"", 0, {}),
    ("a.jsonl", b"\xef\xbb\xbf\n\n", 0, {}),
    ("a.jsonl", "{}\n".encode("utf-16"), 0, {f"line {NOT_TEXT}": 1, "line is not a JSON object": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "kept", "counts"), FAULTY)
def test_what_does_not_fit_is_left_out_and_counted_by_reason(
    tmp_path: Path, name: str, content: bytes, kept: int, counts: dict[str, int]
) -> None:
    (tmp_path / name).write_bytes(content)
    records, left = fitting(tmp_path / name)
    assert (len(records), dict(left.counts), left.total) == (kept, counts, sum(counts.values()))


WHOLE: list[tuple[str, bytes, str]] = [
    ("a.csv", f"{CANARY},flu\n{CANARY},b\n".encode(), "no column 'text'; the 2 names that are there are not shown"),
    ("a.csv", f"{CANARY},{CANARY}\n".encode(), "column 2 of 2 has the name of an earlier column"),
    ("a.csv", b'text,label\nx,a\n"open,a\ny,b\n', "3: the record that starts here"),
    ("a.csv", "text,label\nx,a\n".encode("utf-16"), "1: header is not UTF-8"),
    ("a.tsv", f"{CANARY}\tflu\n".encode(), "no column 'text'"),
    ("a.txt", f"{CANARY}\n".encode(), "no column 'label'"),
    ("a.parquet", CANARY.encode(), "is not a readable Parquet file"),
    ("a.doc", CANARY.encode(), "its suffix is '.doc'"),
]


@pytest.mark.parametrize(("name", "content", "message"), WHOLE)
def test_a_fault_of_the_whole_file_is_an_error(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        fitting(tmp_path / name)
    assert message in str(caught.value)
    assert CANARY not in str(caught.value)


def test_each_file_of_a_directory_has_the_columns(tmp_path: Path) -> None:
    (tmp_path / "train-0.csv").write_text("text,label\nx,a\n")
    (tmp_path / "train-1.csv").write_text("label,other\na,x\n")
    with pytest.raises(DataError, match=r"train-1\.csv: no column 'text'"):
        fitting(tmp_path)


def test_columns_are_mapped_and_the_others_stay(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"t": "x", "d": 3, "person": "p", "\\ud800": "y"}\n')
    mapping = {"text": "t", "label": "d"}
    rows, left = read_fitting(str(tmp_path / "a.jsonl"), mapping=mapping, required=REQUIRED)
    assert rows == Rows(
        [{"text": "x", "label": "3", "person": "p"}], [Line(str(tmp_path / "a.jsonl"), 1)], str(tmp_path / "a.jsonl")
    )
    assert left == LeftOut()


@pytest.mark.parametrize("rows", ["[:5]", "[1:]", "[0:0]", "[:]"])
def test_a_site_does_not_choose_records_by_their_position(tmp_path: Path, rows: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x", "label": "a"}\n')
    with pytest.raises(ConfigError, match="not chosen by their position"):
        read_fitting(f"{tmp_path / 'a.jsonl'}{rows}", mapping={}, required=REQUIRED)


def test_generated_records_all_fit() -> None:
    rows, left = read_fitting("generated:bank-messages", mapping={}, required=REQUIRED)
    assert (len(rows), left.total) == (2000, 0)


def labelled(*labels: str | None) -> Rows:
    records = [{"text": "x"} if label is None else {"text": "x", "label": label} for label in labels]
    return Rows(records, [Line("f.csv", number + 2) for number in range(len(labels))], "f.csv")


def test_other_labels_are_left_out_and_counted_and_never_quoted() -> None:
    rows, left = only_labels(labelled("a", CANARY, "A", None, "b", CANARY), {"a": "the a", "b": "the b"})
    assert [record["label"] for record in rows.records] == ["a", "b"]
    assert [line.number for line in rows.lines] == [2, 6]
    assert str(left) == (
        "4 left out: 4 (f.csv:3, f.csv:4, f.csv:5, f.csv:7): a label that is not in the public label list of 2 labels"
    )


@given(labels=st.lists(st.sampled_from(["a", "b", "c", None]), max_size=8), known=st.sets(st.sampled_from("abc")))
def test_a_label_decides_about_its_own_record_only(labels: list[str | None], known: set[str]) -> None:
    kept, left = only_labels(labelled(*labels), known)
    assert [record["label"] for record in kept.records] == [label for label in labels if label in known]
    assert len(kept) + left.total == len(labels)


def test_counts_of_several_readings_add_up() -> None:
    one = LeftOut({"x": 6, "y": 1}, {"x": tuple(Line("a", n) for n in range(5)), "y": (Line("a", 9),)})
    two = LeftOut({"x": 1, "z": 2}, {"x": (Line("b", 1),), "z": (Line("b", 2), Line("b", 3))})
    both = one + two
    assert (both.counts, both.total) == ({"x": 7, "y": 1, "z": 2}, 10)
    assert str(both) == "10 left out: 7 (a:0, a:1, a:2, a:3, a:4, ...): x; 1 (a:9): y; 2 (b:2, b:3): z"
    assert str(LeftOut()) == "0 left out"
