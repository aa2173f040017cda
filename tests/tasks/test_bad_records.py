"""Bad records of every kind of task: one error that names file and line and never the text; a site leaves them out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.core.data.columns import only_sound
from llmchain_fl.core.data.source import read_fitting
from llmchain_fl.core.errors import DataError
from llmchain_fl.core.tasks.kind import TASKS, task_kind
from llmchain_fl.data.source import check_kind, read_rows

NAMES = ("PER", "ORG", "A(e1,e2)", "A(e2,e1)")
SECRET = "Hildegard"
MARKED = f"<e1>{SECRET}</e1> on <e2>{SECRET}</e2>"
GOOD: dict[str, dict[str, Any]] = {
    "token-classification": {"tokens": [SECRET, "said"], "tags": ["B-PER", "O"]},
    "span-qa": {"question": "who", "context": f"it was {SECRET}", "answers": [SECRET], "answer_start": [7]},
    "relation": {"text": MARKED, "label": "A(e1,e2)"},
    "pair-classification": {"text": SECRET, "text2": SECRET, "label": "PER"},
    "label-words": {"text": SECRET, "label": "PER"},
    "multi-label": {"text": SECRET, "labels": ["PER", "ORG"]},
    "regression": {"text": SECRET, "value": 0.5},
    "ranking": {"query": SECRET, "candidates": [f"{SECRET} a", "b"], "grades": [1, 0]},
    "masked-lm": {"text": SECRET},
    "dialogue": {"messages": [{"role": "user", "content": SECRET}, {"role": "assistant", "content": "yes"}]},
    "summarisation": {"document": f"{SECRET} said much", "summary": SECRET},
    "translation": {"source": SECRET, "target": SECRET},
}
GONE = object()
"""A column that is left out."""
BAD: dict[str, list[dict[str, Any]]] = {
    "token-classification": [
        *[{"tags": tags} for tags in (["O"], ["O"] * 3, [], GONE, None, "", "O O", ["B-PER", 1], ["B-PER", None])],
        *[{"tags": ["O", tag]} for tag in ("B-DATE", "PERSON", "b-PER", "X-PER", "B-", "B_PER", "o", "", SECRET)],
        *[{"tokens": tokens} for tokens in ([], GONE, None, SECRET, [[SECRET]], [1.5, "a"], {"a": 1}, 3)],
    ],
    "span-qa": [
        *[
            {"answers": answers}
            for answers in ([], GONE, None, SECRET, [""], [" "], ["Hilde", "gard"], [7], ["nobody"])
        ],
        *[{"answer_start": starts} for starts in ([], [0], [8], [-1], [999], ["7"], [7, 7], [7.5], GONE, None, 7)],
        *[{"context": context} for context in ("", GONE, None, "it was", ["it"], f"it was  {SECRET}")],
        {"question": ""},
        {"question": GONE},
    ],
    "relation": [
        *[{"text": MARKED.replace(*pair)} for pair in (("<e1>", ""), ("</e2>", ""), ("<e2>", "<e1>"), ("e2", "e3"))],
        *[{"text": text} for text in (SECRET, f"{MARKED} <e1>x</e1>", "", GONE, None, [MARKED], f"{MARKED}</e1>")],
        *[{"text": f"<e1>{SECRET} <e2>x{end}"} for end in ("</e1></e2>", "</e2></e1>", "</e1>", "")],
        {"text": f"</e1>{SECRET}<e1> <e2>x</e2>"},
        {"text": f"<e1></e1> <e2>{SECRET}</e2>"},
        *[{"label": label} for label in ("A", "a(e1,e2)", "A(e1, e2)", "", GONE, None, ["PER"])],
    ],
    "pair-classification": [
        *[{column: bad} for column in ("text", "text2") for bad in ("", "  ", GONE, None, ["x"], {"a": 1}, "\ud800")],
        *[{"label": label} for label in ("per", "PER ", "DATE", "", GONE, None, ["PER"], SECRET)],
    ],
    "multi-label": [
        *[{"text": bad} for bad in ("", "  ", GONE, None, ["x"], {"a": 1}, "\ud800", [])],
        *[{"labels": ["PER", bad]} for bad in ("per", "PER", "DATE", "", 3, None, ["ORG"], 1.5, SECRET)],
        *[{"labels": bad} for bad in (GONE, None, "", "PER", "PER, ORG", {"PER": 1}, 3)],
    ],
    "regression": [
        *[{"text": bad} for bad in ("", "  ", GONE, None, ["x"], {"a": 1}, "\ud800")],
        *[{"value": bad} for bad in ("", GONE, None, SECRET, "3,5", "nan", "inf", "-inf", "1e999", [1], {"a": 1})],
        *[{"value": bad} for bad in (True, "0x10", "1 2", "--1")],
    ],
    "ranking": [
        *[{"query": bad} for bad in ("", "  ", GONE, None, ["x"], "\ud800")],
        *[{"candidates": bad} for bad in ([], [SECRET], [SECRET] * 2, [SECRET, ""], [SECRET, " "], [SECRET, 3])],
        *[{"candidates": bad} for bad in (GONE, None, "", SECRET, [[SECRET], "b"], {"a": 1}, 3, ["a", "b", "c"])],
        *[{"grades": bad} for bad in ([], [1], [1, 0, 0], [0, 0], [1, -1], [1, 32], [1, "x"], [1, 1.5], [1, None])],
        *[{"grades": bad} for bad in (GONE, None, "1 0", 1)],
    ],
    "masked-lm": [
        *[{"text": bad} for bad in ("", " ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u3000", "\u2028", "\f")],
        *[{"text": bad} for bad in (GONE, None, [], [SECRET], [[SECRET]], {}, {"a": SECRET}, [None], 10**1300)],
        *[{"text": bad} for bad in ("\ud800", f"{SECRET}\udfff", f"\ud800{SECRET}")],
    ],
}
GOOD["span-qa-or-none"] = GOOD["span-qa"]
BAD["span-qa-or-none"] = [*BAD["span-qa"], {"answers": [], "answer_start": [0]}, {"answers": [], "answer_start": GONE}]
NO_TEXT = ("", "  ", "\n", GONE, None, ["x"], [], {"a": 1}, [SECRET, SECRET], "\ud800")
for _kind, _columns in (("summarisation", ("document", "summary")), ("translation", ("source", "target"))):
    BAD[_kind] = [{column: bad} for column in _columns for bad in NO_TEXT]


def said(*roles: str, content: Any = SECRET) -> dict[str, Any]:
    """A conversation of turns with these roles; the last one says ``content``."""
    turns = [{"role": role, "content": SECRET} for role in roles]
    return {"messages": [*turns[:-1], {**turns[-1], "content": content}]}


BAD["dialogue"] = [
    *[{"messages": told} for told in ([], GONE, None, "", SECRET, 3, {"role": "user", "content": SECRET}, [SECRET])],
    *[{"messages": [one]} for one in ([SECRET], {"role": "user"}, {"content": SECRET}, None, {"from": SECRET}, 7)],
    *[said("user", "assistant", content=bad) for bad in (None, 3, ["x"], {"text": SECRET}, "", "  ", "\ud800", True)],
    *[said("user", role) for role in ("bot", "Assistant", "tool", "", "assistant ", "system")],
    *[said(*roles.split()) for roles in ("system system user assistant", "user system assistant", "assistant user")],
    *[
        said(*roles.split())
        for roles in ("user", "user user", "system", "system user", "system assistant", "assistant")
    ],
]
BAD["label-words"] = [
    *[{"text": bad} for bad in NO_TEXT],
    *[{"label": bad} for bad in ("per", "PER ", "DATE", "", GONE, None, ["PER"], SECRET, 3, {"PER": 1})],
]
CASES = [(kind, number) for kind, told in BAD.items() for number in range(len(told))]


def row_of(kind: str, change: dict[str, Any]) -> dict[str, Any]:
    return {column: value for column, value in (GOOD[kind] | change).items() if value is not GONE}


def written(folder: Path, rows: list[dict[str, Any]]) -> str:
    file = folder / "records.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


def test_every_kind_with_conditions_of_its_own_is_in_the_table_at_least_20_times() -> None:
    assert {name for name, kind in TASKS.items() if kind.fault is not None} <= set(BAD)
    assert all(len(told) >= 20 for told in BAD.values())


@pytest.mark.parametrize(("kind", "number"), CASES)
def test_a_bad_public_record_is_one_error_with_file_and_line_and_without_its_text(
    kind: str, number: int, tmp_path: Path
) -> None:
    told = task_kind(kind)
    file = written(tmp_path, [GOOD[kind], row_of(kind, BAD[kind][number]), GOOD[kind]])

    def read() -> None:
        rows = read_rows(file, mapping={}, required=told.columns, split="test", seed=1, private=False)
        check_kind(rows, told, NAMES)

    with pytest.raises(DataError) as caught:
        read()
    assert caught.value.where == f"{file}:2"
    assert SECRET not in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize("kind", BAD)
def test_a_site_leaves_every_bad_record_out_and_keeps_the_others_whatever_stands_beside_them(
    kind: str, tmp_path: Path
) -> None:
    told = task_kind(kind)
    rows = [row for change in BAD[kind] for row in (GOOD[kind], row_of(kind, change))]
    found, left = read_fitting(written(tmp_path, rows), mapping={}, required=told.columns)
    kept, others = only_sound(found, lambda row: told.fault_of(row, frozenset(NAMES)))
    known = [row for row in kept.records if row.get("label", NAMES[0]) in NAMES]
    assert len(known) == len(BAD[kind])
    assert all(row == known[0] for row in known)
    assert SECRET not in str(left + others)


@pytest.mark.parametrize("kind", GOOD)
def test_a_good_record_is_read_and_encoded(kind: str, tmp_path: Path, small: Any) -> None:
    told = task_kind(kind)
    found, left = read_fitting(written(tmp_path, [GOOD[kind]]), mapping={}, required=told.columns)
    assert left.total == 0
    check_kind(found, told, NAMES)
    task = small.task(kind, max_tokens=24)
    names = {"PER": "rates", "ORG": "other", "A(e1,e2)": "rates"}
    text = json.dumps(found.records[0])
    for ours, theirs in names.items():
        text = text.replace(ours, theirs)
    assert task.encode([json.loads(text)]).records == 1
