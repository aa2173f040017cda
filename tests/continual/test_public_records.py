from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.continual.public_shelf import PublicShelf, pack
from llmchain_fl.core.errors import DataError, WireError
from llmchain_fl.core.guards.public_records import COLUMNS, MAX_BYTES, MAX_RECORDS, PublicSample, draw, unpack

TEXT = st.text(st.characters(blacklist_categories=("Cs",)), max_size=20)
ROWS = st.lists(st.dictionaries(st.sampled_from(COLUMNS), TEXT, min_size=1), max_size=8)


def raw(text: str | bytes) -> np.ndarray:
    return np.frombuffer(text if isinstance(text, bytes) else text.encode(), dtype=np.uint8)


@given(ROWS)
def test_records_come_back_as_they_were_sent(rows: list[dict[str, str]]) -> None:
    assert [dict(row) for row in unpack(pack(rows))] == rows


def test_no_record_is_an_empty_array_and_back() -> None:
    assert pack([]).shape == (0,)
    assert unpack(pack([])) == ()


def test_the_same_records_are_the_same_bytes_whatever_the_order_of_their_columns() -> None:
    one, other = {"text": "a", "label": "b"}, {"label": "b", "text": "a"}
    assert pack([one]).tobytes() == pack([other]).tobytes()
    assert pack([one]).dtype == np.uint8


def test_a_person_does_not_travel() -> None:
    assert unpack(pack([{"text": "a", "person": "Jane", "id": "3"}])) == ({"text": "a"},)
    assert b"Jane" not in pack([{"text": "a", "person": "Jane"}]).tobytes()


def test_too_many_records_or_bytes_are_refused_when_packed() -> None:
    with pytest.raises(DataError, match="public_size"):
        pack([{"text": "a"}] * (MAX_RECORDS + 1))
    with pytest.raises(DataError, match=str(MAX_BYTES)):
        pack([{"text": "a" * 1024}] * 5000)
    assert len(unpack(pack([{"text": "a"}] * MAX_RECORDS))) == MAX_RECORDS


def test_half_a_surrogate_pair_is_refused_when_packed() -> None:
    with pytest.raises(DataError, match="surrogate"):
        pack([{"text": "\ud800"}])


HOSTILE = {
    "no JSON": "secret {",
    "no object": '["secret"]',
    "a number for an object": "7",
    "an empty object": "{}",
    "an empty line": '{"text": "a"}\n',
    "an unknown key": '{"text": "secret", "path": "/etc"}',
    "a number": '{"text": 7}',
    "nothing": '{"text": null}',
    "a list": '{"text": ["secret"]}',
    "half a surrogate pair": '{"text": "\\ud800"}',
    "deep nesting": "[" * 200_000,
    "not UTF-8": b"\xff\xfe secret",
    "infinity": '{"text": Infinity}',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_record_is_refused_without_a_word_of_it(name: str) -> None:
    with pytest.raises(WireError) as caught:
        unpack(raw(HOSTILE[name]))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(3, dtype=np.float32),
        np.zeros((1, 3), dtype=np.uint8),
        np.zeros(MAX_BYTES + 1, dtype=np.uint8),
        b"text",
        None,
    ],
)
def test_something_else_than_bytes_is_refused(array: Any) -> None:
    with pytest.raises(WireError):
        unpack(array)


def test_too_many_lines_are_refused_when_read() -> None:
    with pytest.raises(WireError, match=str(MAX_RECORDS)):
        unpack(raw("\n".join([json.dumps({"text": "a"})] * (MAX_RECORDS + 1))))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.integers(1, 1000), st.integers(0, 1000))
def test_a_draw_is_without_repetition_and_follows_from_its_key(
    count: int, size: int, seed: int, number: int, step: int
) -> None:
    drawn = draw(count, size, (seed, number), step)
    assert len(drawn) == len(set(drawn)) == min(count, size)
    assert all(0 <= i < count for i in drawn)
    assert drawn == draw(count, size, (seed, number), step)


def test_another_step_round_or_seed_draws_other_records() -> None:
    drawn = {tuple(draw(1000, 8, key, step)) for key in ((1, 1), (1, 2), (2, 1)) for step in (0, 1, 2)}
    assert len(drawn) == 9


def test_every_record_is_drawn_as_often_as_any_other() -> None:
    counts = np.bincount([i for step in range(3000) for i in draw(10, 3, (1, 1), step)], minlength=10)
    assert np.abs(counts - 900).max() < 5 * np.sqrt(900 * 0.7)


def test_a_site_reads_what_the_server_put_on_the_shelf_and_draws_with_its_key(small: Any) -> None:
    shelf, rows, task = PublicShelf("x"), small.rows(9), small.task()
    assert shelf.arrays() == {}
    shelf.put(rows)
    shelf.turn(3, 5)
    sample = PublicSample("x", shelf.arrays(), 4)
    assert sample
    assert [dict(row) for row in sample.rows] == rows
    assert [sample.next(), sample.next()] == [draw(9, 4, (3, 5), 0), draw(9, 4, (3, 5), 1)]
    examples = sample.examples(task)
    assert len(examples) == 9
    assert PublicSample("x", shelf.arrays(), 4).examples(task) is examples  # of the next round
    shelf.put(rows[:4])
    assert len(PublicSample("x", shelf.arrays(), 4).examples(task)) == 4
    other = small.task(rank=2)
    assert PublicSample("x", shelf.arrays(), 4).examples(other) is not sample.examples(task)


def test_a_shelf_survives_and_leaves_what_is_not_its_own() -> None:
    shelf, again = PublicShelf("x"), PublicShelf("x")
    shelf.put([{"text": "a"}])
    shelf.turn(1, 2)
    again.load({**shelf.arrays(), "y.rows": np.zeros(1)})  # type: ignore[dict-item]
    assert set(again.arrays()) == {"x.rows", "x.draw"}
    assert again.arrays()["x.draw"].tolist() == [1, 2]


def test_without_a_payload_there_is_nothing_to_draw() -> None:
    assert not PublicSample("x", {}, 4)


@pytest.mark.parametrize(
    "key", [np.zeros(3, np.int64), np.zeros(2, np.float32), np.array([-1, 2]), np.zeros((2, 1), int)]
)
def test_a_key_that_is_no_pair_of_numbers_is_refused(key: Any) -> None:
    with pytest.raises(WireError, match="key"):
        PublicSample("x", {"x.rows": pack([{"text": "a"}]), "x.draw": key}, 4)  # type: ignore[dict-item]
