"""Whatever stands at a path: records, or one error of ours, at once, within bounds, without a word of any record."""

from __future__ import annotations

import datetime
import importlib.util
import os
import resource
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pyarrow
import pytest
from pyarrow import parquet

from llmchain_fl.core.data.lines import LONGEST_LINE
from llmchain_fl.core.data.readers import READERS
from llmchain_fl.core.data.rows import LeftOut
from llmchain_fl.core.data.source import read_fitting
from llmchain_fl.core.errors import LlmchainError
from llmchain_fl.core.toml_file import read_toml
from llmchain_fl.data.label_list import read_label_list
from llmchain_fl.data.source import read_rows

datasets = pytest.importorskip("datasets")

CANARY = "zebra-4711"


@pytest.fixture(scope="module")
def drill() -> ModuleType:
    """``benchmarks/bench_mutants_files.py``, which stands outside of every package."""
    path = Path(__file__).parents[2] / "benchmarks" / "bench_mutants_files.py"
    spec = importlib.util.spec_from_file_location("bench_mutants_files", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", ["records", "saved", "labels"])
@pytest.mark.part(1)
def test_mutants_of_files_are_read_or_refused(drill: ModuleType, kind: str) -> None:
    found = drill.drill(seed=7, count=700, kinds=[kind])
    assert found["wrong"] == []
    assert found["growth_mb"] < 100
    assert {word for (_, word), count in found["outcomes"].items() if count} >= {"accepted", "refused"}


@pytest.mark.thorough
@pytest.mark.timeout(1200)
def test_two_thousand_mutants_or_as_many_as_asked_for(drill: ModuleType) -> None:
    count = int(os.environ.get("MUTANTS", "2000"))
    found = drill.drill(seed=11, count=count)
    assert found["wrong"] == []
    assert found["growth_mb"] < 300


def fifo(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder_in_its_place(path: Path) -> None:
    path.mkdir()


def nowhere(path: Path) -> None:
    path.symlink_to(path.with_name("gone"))


def loop(path: Path) -> None:
    path.symlink_to(path)


def nothing(path: Path) -> None:
    pass


STANDS: dict[str, Callable[[Path], None]] = {
    "a pipe": fifo,
    "a device": device,
    "a folder": folder_in_its_place,
    "a dead link": nowhere,
    "a link to itself": loop,
    "nothing": nothing,
}
DOORS: dict[str, Callable[[str], object]] = {
    "read_fitting": lambda path: read_fitting(path, mapping={}, required=("text",)),
    "read_rows": lambda path: read_rows(path, mapping={}, required=("text",), split="train", seed=0),
    "read_label_list": read_label_list,
    "read_toml": lambda path: read_toml(Path(path)),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("stands", STANDS)
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, stands: str, door: str) -> None:
    for suffix in (*READERS, "toml", "csv.gz"):
        path = tmp_path / f"a.{suffix}"
        STANDS[stands](path)
        with pytest.raises(LlmchainError):
            DOORS[door](str(path))


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", ["a" * 300 + ".csv", "a\0.csv", "\ud800.csv", "a.csv/b.csv", "x" * 5000, "~\n.csv"])
def test_what_is_no_name_of_a_file_is_refused(tmp_path: Path, name: str, door: str) -> None:
    (tmp_path / "a.csv").write_text("text\nx\n")
    with pytest.raises(LlmchainError):
        DOORS[door](str(tmp_path / name))


@pytest.mark.parametrize("door", DOORS)
def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, door: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, CANARY)

    for suffix in (*sorted(set(READERS) - {"parquet", "xlsx"}), "toml"):
        (tmp_path / f"a.{suffix}").write_text("text\nx\n")
        with monkeypatch.context() as patch:
            patch.setattr("llmchain_fl.core.regular_file.os.open", refuse)
            with pytest.raises(LlmchainError) as caught:
                DOORS[door](str(tmp_path / f"a.{suffix}"))
        assert caught.value.__cause__ is None


@pytest.mark.timeout(60)
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".txt"])
@pytest.mark.part(1)
def test_a_line_without_end_takes_bounded_memory(tmp_path: Path, suffix: str) -> None:
    """Two hundred million characters, most of them a hole in the file, between two records."""
    first, last = {
        ".jsonl": (b'{"text": "x"}\n', b'\n{"text": "y"}\n'),
        ".csv": (b"text\nx\n", b"\ny\n"),
        ".tsv": (b"text\nx\n", b"\ny\n"),
        ".txt": (b"x\n", b"\ny\n"),
    }[suffix]
    path = tmp_path / f"a{suffix}"
    with path.open("wb") as file:
        file.write(first)
        file.seek(200_000_000)
        file.write(last)
    tracemalloc.start()
    rows, left = read_fitting(str(path), mapping={}, required=("text",))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert ([row["text"] for row in rows.records], left.total) == (["x", "y"], 1)
    assert peak < 8 * LONGEST_LINE
    with pytest.raises(LlmchainError, match=r":[23]: "):
        read_rows(str(path), mapping={}, required=("text",), split="train", seed=0)


FAR = pyarrow.array([0, 2**50, -(2**50)], pyarrow.int64())
BAD_TEXT = pyarrow.array([b"ok", b"\xff\xfe", CANARY.encode()], pyarrow.binary())
COLUMNS: dict[str, pyarrow.Array] = {
    "far dates": FAR.view(pyarrow.timestamp("s")),
    "near dates": pyarrow.array([datetime.date(2026, 1, 1)] * 3),
    "bytes": BAD_TEXT,
    "lists": pyarrow.array([[CANARY], [], None]),
    "maps": pyarrow.array([[("a", 1)], [], None], pyarrow.map_(pyarrow.string(), pyarrow.int32())),
    "durations": FAR.view(pyarrow.duration("s")),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_a_parquet_column_that_is_no_text_is_left_out_or_a_fault_of_its_records(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": ["x", "y", "z"], "when": COLUMNS[kind]}), path)
    rows, left = read_fitting(str(path), mapping={}, required=("text",))
    assert (rows.records, left.total) == ([{"text": text} for text in "xyz"], 0)
    rows, left = read_fitting(str(path), mapping={}, required=("text", "when"))
    assert (len(rows), left.total) == (0, 3)
    with pytest.raises(LlmchainError, match="a column 'when' that is") as caught:
        read_rows(str(path), mapping={}, required=("text", "when"), split="train", seed=0)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("text", [pyarrow.string(), pyarrow.large_string(), pyarrow.string_view()], ids=str)
@pytest.mark.parametrize("encoded", [False, True])
def test_a_parquet_cell_that_is_not_utf8_is_a_fault_of_its_record_alone(
    tmp_path: Path, text: pyarrow.DataType, encoded: bool
) -> None:
    column = BAD_TEXT.view(pyarrow.string()) if encoded else BAD_TEXT.cast(pyarrow.large_binary())
    if not encoded:
        column = {
            pyarrow.string(): lambda: BAD_TEXT.view(pyarrow.string()),
            pyarrow.large_string(): lambda: column.view(pyarrow.large_string()),
            pyarrow.string_view(): lambda: BAD_TEXT.cast(pyarrow.binary_view()).view(pyarrow.string_view()),
        }[text]()
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": column.dictionary_encode() if encoded else column}), path)
    rows, left = read_fitting(str(path), mapping={}, required=("text",))
    assert ([row["text"] for row in rows.records], dict(left.counts)) == (
        ["ok", CANARY],
        {"a column 'text' that is no text": 1},
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict({"text": [CANARY, "y"]}).save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["state.json", "dataset_info.json", "data-00000-of-00001.arrow", "more"])
def test_a_pipe_in_a_saved_data_set_is_refused_and_not_waited_for(saved: Path, name: str) -> None:
    (saved / name).unlink(missing_ok=True)
    fifo(saved / name)
    with pytest.raises(LlmchainError):
        read_fitting(str(saved), mapping={}, required=("text",))


@pytest.mark.parametrize(
    "parts",
    ['[{"filename": "../other.arrow"}]', '[{"filename": ["x"]}]', "[1]", '"x"', "null", "[{}]", '[{"filename": "x"}]'],
)
def test_a_saved_data_set_is_of_the_files_in_its_folder(saved: Path, parts: str) -> None:
    (saved.parent / "other.arrow").write_bytes((saved / "data-00000-of-00001.arrow").read_bytes())
    (saved / "state.json").write_text(f'{{"_data_files": {parts}}}')
    with pytest.raises(LlmchainError, match="no data set can be loaded"):
        read_fitting(str(saved), mapping={}, required=("text",))


def test_memory_does_not_stay_with_what_was_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"[" * 3000 + b"\n" + b'{"text": ' + b"9" * 5000 + b"}\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(200):
        rows, left = read_fitting(str(path), mapping={}, required=("text",))
        assert (len(rows), left.total) == (0, 2)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024
    assert left != LeftOut()
