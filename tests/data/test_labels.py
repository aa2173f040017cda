"""The label list: order kept, doubles refused, and a site's own label never quoted."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmchain_fl.core.data.rows import Line, Rows
from llmchain_fl.core.errors import DataError
from llmchain_fl.data.generated import LABELS
from llmchain_fl.data.label_list import read_label_list
from llmchain_fl.data.source import check_labels, read_rows

CANARY = "zebra-4711"


def label_file(folder: Path, name: str, content: str) -> str:
    (folder / name).write_text(content, encoding="utf-8")
    return str(folder / name)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("l.json", '["lost_card", "top-up", "_"]', {"lost_card": "lost card", "top-up": "top up", "_": "_"}),
        ("l.json", '{"b": "text of b", "a_a": " "}', {"b": "text of b", "a_a": "a a"}),
        ("l.txt", "\ufeffb_b\r\n\n a \n", {"b_b": "b b", "a": "a"}),
        ("l.tsv", "b_b\tthe b\nc\t\n", {"b_b": "the b", "c": "c"}),
        ("l.txt", "\u5361\u7247_\u4e22\u5931", {"\u5361\u7247_\u4e22\u5931": "\u5361\u7247 \u4e22\u5931"}),
    ],
)
def test_a_label_list_is_read_in_order(tmp_path: Path, name: str, content: str, expected: dict[str, str]) -> None:
    labels = read_label_list(label_file(tmp_path, name, content))
    assert list(labels.items()) == list(expected.items())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.json", '["a", "b", "a"]', "label 3 is the same as label 1"),
        ("l.json", '{"a": "x", "a": "y"}', "label 2 is the same as label 1"),
        ("l.txt", "a\nb\na\tthe a\n", "label 3 is the same as label 1"),
        ("l.json", "[]", "holds no label"),
        ("l.json", "{}", "holds no label"),
        ("l.txt", "\n \n", "holds no label"),
        ("l.json", '["a", ""]', "label 2 is empty"),
        ("l.txt", "a\n\tthe text\n", "label 2 is empty"),
        ("l.json", '["a", 1]', "label 2 is no text"),
        ("l.json", '[["a", "b"]]', "label 1 is no text"),
        ("l.json", '[{"a": "b"}]', "label 1 is no text"),
        ("l.json", '{"a": 1}', "label 1 is no text"),
        ("l.json", '"a"', "not a JSON list or object"),
        ("l.json", "a, b", "not a JSON list or object"),
    ],
)
def test_a_bad_label_list_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    spec = label_file(tmp_path, name, content)
    with pytest.raises(DataError, match=message) as caught:
        read_label_list(spec)
    assert caught.value.where == spec


def test_a_missing_label_list_names_the_nearest_file(tmp_path: Path) -> None:
    label_file(tmp_path, "labels.json", "[]")
    with pytest.raises(DataError, match=r"did you mean .*labels\.json"):
        read_label_list(str(tmp_path / "label.json"))


def test_a_list_is_its_own_label_list() -> None:
    assert read_label_list(["b_c", "a"]) == {"b_c": "b c", "a": "a"}
    for bad in ([], ["a", "a"], [""]):
        with pytest.raises(DataError, match="the label list: "):
            read_label_list(bad)


def test_the_generated_messages_bring_their_label_list() -> None:
    labels = read_label_list("generated:bank-messages")
    assert list(labels) == LABELS
    rows = read_rows("generated:bank-messages", mapping={}, required=("text", "label"), split="train", seed=0, size=200)
    check_labels(rows, labels)


def labelled(*labels: str) -> Rows:
    return Rows([{"label": label} for label in labels], [Line("f.csv", n + 2) for n in range(len(labels))], "f.csv")


def test_known_labels_pass() -> None:
    check_labels(labelled("a", "b"), {"a": "the a", "b": "the b", "c": ""})


def test_an_unknown_label_is_counted_and_never_quoted() -> None:
    with pytest.raises(DataError) as caught:
        check_labels(labelled("a", CANARY, "A", "a ", CANARY, CANARY, CANARY), ["a", "b"])
    expected = (
        "f.csv:3: 6 records (lines 3, 4, 5, 6, 7, ...) have a label that is not in the public label list of 2 labels"
    )
    assert expected in str(caught.value)
    assert CANARY not in str(caught.value)


def test_records_without_labels_are_refused() -> None:
    with pytest.raises(DataError, match=r"f:1: 1 record \(line 1\) has a label that is not in the public label list"):
        check_labels(Rows([{"text": CANARY}], [Line("f", 1)], "f"), ["a"])
