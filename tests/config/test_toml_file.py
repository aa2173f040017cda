"""TOML that somebody wrote: its tables, or one ConfigError that says what is wrong and where."""

from __future__ import annotations

import os
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.config.read import build, parse_setting, read_config
from llmchain_fl.config.write import table_to_toml
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.toml_file import MOST_BYTES, MOST_DEPTH, parse_toml, read_toml, tree_fault

MARK = b"\xef\xbb\xbf"
CONFIG = b'[data]\ntrain = "x"\n[task]\nlabels = ["a"]\n'


def fault_of(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_toml(path)
    assert caught.value.__cause__ is None
    assert len(caught.value.faults) == 1
    assert str(path) in str(caught.value)
    return caught.value.faults[0]


@pytest.mark.parametrize("content", [CONFIG, MARK + CONFIG, CONFIG.replace(b"\n", b"\r\n"), MARK, b""])
def test_a_byte_order_mark_and_line_ends_change_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(content)
    assert read_toml(path) == ({"data": {"train": "x"}, "task": {"labels": ["a"]}} if b"data" in content else {})


def test_a_configuration_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(MARK + CONFIG)
    assert read_config(tmp_path / "a.toml").task.labels == ["a"]


BROKEN: list[tuple[bytes, str]] = [
    (b"a = 1\nb =\n", "Invalid value (at line 2, column 4)"),
    (b"a = 1\na = 2\n", "Cannot overwrite a value"),
    ("a = 1".encode("utf-16"), "begins with a UTF-16 byte order mark; save it as UTF-8"),
    ("a = 1".encode("utf-16-be"), "not valid TOML"),
    (b'a = 1\nb = "\xff"\n', "line 2 is not UTF-8"),
    (b"a = " + b"[" * 3000, "nested too deeply"),
    (b"a = " + b"[" * 3000 + b"]" * 3000, "nested too deeply"),
    (b"a = " + b"[" * 40 + b"1" + b"]" * 40, "nested more than 32 deep"),
    (b"a = " + b"9" * 5000, "a number is too long"),
    (b"a = " + b"9" * 4300, "does not fit into 64 bits"),
    (b"a = 0x" + b"f" * 5000, "does not fit into 64 bits"),
    (b"a = [{b = -9223372036854775809}]", "does not fit into 64 bits"),
    (b"a = 2026-02-30", "Invalid date"),
    (b"a." * 500_000 + b"a = 1", "a key has more than 100 parts"),
    (b"[" + b"a . " * 500_000 + b"a]", "a key has more than 100 parts"),
    (b"a = {" + b"'a'." * 500_000 + b"a = 1}", "a key has more than 100 parts"),
    (b"a = 1\n# " + b"x" * MOST_BYTES, "more than 4,194,304 bytes"),
    (b"\x00", "not valid TOML"),
]


@pytest.mark.parametrize(("content", "words"), BROKEN, ids=range(len(BROKEN)))
def test_what_is_no_toml_is_one_error_in_words_and_soon(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(content)
    begun = time.perf_counter()
    assert words in fault_of(path)
    assert time.perf_counter() - begun < 5


def test_a_long_text_with_points_is_no_key(tmp_path: Path) -> None:
    text = "a." * 500 + ", b." + "c." * 98
    assert parse_toml(f'a = "{text}"') == ({"a": text}, "")


def test_what_is_missing_is_named_as_the_caller_calls_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_toml(tmp_path / "a.toml", "site file", remedy="write one")
    assert caught.value.faults == [f"there is no site file {tmp_path / 'a.toml'}"]
    assert caught.value.remedy == "write one"


@pytest.mark.timeout(20)
def test_a_folder_and_a_pipe_cannot_be_read_and_nobody_waits(tmp_path: Path) -> None:
    assert "cannot be read: not a regular file" in fault_of(tmp_path)
    os.mkfifo(tmp_path / "pipe.toml")
    assert "cannot be read: not a regular file" in fault_of(tmp_path / "pipe.toml")
    (tmp_path / "zero.toml").symlink_to("/dev/zero")
    assert "cannot be read: not a regular file" in fault_of(tmp_path / "zero.toml")


def nested(depth: int, leaf: object, *, lists: bool) -> object:
    """``depth`` tables or lists in each other, the innermost with one leaf."""
    value = leaf
    for _ in range(depth):
        value = [value] if lists else {"a": value}
    return value


@pytest.mark.parametrize("lists", [True, False])
@pytest.mark.parametrize(
    ("depth", "leaf", "fault"),
    [
        (MOST_DEPTH, 1, ""),
        (MOST_DEPTH + 1, 1, "nested more than 32 deep"),
        (3, 2**63 - 1, ""),
        (3, 2**63, "64 bits"),
        (3, -(2**63), ""),
        (3, -(2**63) - 1, "64 bits"),
        pytest.param(3, 10**5000, "64 bits", id="5,000 digits"),
        (3, 1e308, ""),
        (3, True, ""),
    ],
)
def test_the_tree_of_a_file_is_bounded_by_the_table(depth: int, leaf: object, fault: str, lists: bool) -> None:
    found = tree_fault(nested(depth, leaf, lists=lists))
    assert fault in found
    assert bool(fault) == bool(found)


LEAVES = (
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5) | st.integers(-(2**63), 2**63 - 1) | st.booleans()
)
TABLES = st.dictionaries(
    st.from_regex(r"[a-z_]{1,5}", fullmatch=True), LEAVES | st.lists(LEAVES, max_size=3), max_size=4
)


@given(tree=TABLES)
def test_what_was_written_is_read_back(tree: dict[str, Any]) -> None:
    assert parse_toml(table_to_toml(tree)) == (tree, "")


@given(st.text(st.sampled_from("a.=[]{}\"'\n 1\\u,#-:TZe_x\ud800\x00"), max_size=30))
def test_any_text_has_tables_or_a_fault(text: str) -> None:
    tables, fault = parse_toml(text)
    if fault:
        assert tables == {}
        with pytest.raises(tomllib.TOMLDecodeError):
            tomllib.loads(text)
    else:
        assert tables == tomllib.loads(text)


@pytest.mark.parametrize(
    "value", ["[" * 3000, "9" * 5000, "0x" + "f" * 99, "a." * 99, "[" * 40 + "]" * 40, "\ud800", "\x1b[2J"]
)
def test_a_setting_whose_value_no_file_may_hold_is_a_text_and_a_fault_that_a_terminal_can_show(value: str) -> None:
    assert parse_setting(f"train.lr={value}") == (["train", "lr"], value)
    with pytest.raises(ConfigError) as caught:
        build({"data": {"train": "x"}, "task": {"labels": ["a"]}, "train": {"lr": value}})
    (fault,) = caught.value.faults
    assert fault.startswith("train.lr = ")
    assert fault.isprintable()
    assert len(fault) < 500
