from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from safetensors.numpy import save

from llmchain_fl import __version__
from llmchain_fl.core import array_record
from llmchain_fl.core.adapter.digest import digest
from llmchain_fl.core.array_record import pack, unpack
from llmchain_fl.core.errors import WireError
from llmchain_fl.core.messages import PROTOCOL, HelloReply, TrainTask
from llmchain_fl.core.score_task import ScoreTask, read_score_task
from llmchain_fl.core.section import NAME
from llmchain_fl.core.wire import read_train_task, write_hello, write_refusal, write_scores, write_update
from llmchain_fl.replies import MAX_RECEIPT, MAX_SCORES, Refusal, Scores, Update, read_hello, read_reply
from llmchain_fl.requests import Packed, size_of, write_score_task, write_train_task

ARRAYS = {"x.lora_B": np.arange(6, dtype=np.float32).reshape(3, 2), "head.bias": np.array([np.nan, -0.0], np.float32)}
TASK = TrainTask(
    run="r",
    round=3,
    stage=1,
    stage_name="cards",
    lr=0.5,
    work="{}",
    arrays=ARRAYS,
    guard_arrays={"teacher.x": ARRAYS["x.lora_B"]},
    receipt="abc",
    federation="north",
    clip=0.25,
)


def travelled(content: RecordDict) -> RecordDict:
    """Through Flower's bytes, as between two machines."""
    proto = recorddict_to_proto(content)
    return recorddict_from_proto(type(proto).FromString(proto.SerializeToString()))


def test_a_train_task_survives_the_wire() -> None:
    back = read_train_task(travelled(write_train_task(TASK)))
    assert (back.run, back.round, back.stage, back.stage_name, back.lr, back.work) == ("r", 3, 1, "cards", 0.5, "{}")
    assert digest(back.arrays) == digest(ARRAYS)
    assert digest(back.guard_arrays) == digest(TASK.guard_arrays)
    assert (back.receipt, back.federation, back.clip) == ("abc", "north", 0.25)
    assert back.key == TASK.key == "r/3"


def test_arrays_that_many_sites_are_sent_are_written_once_and_are_the_same_bytes() -> None:
    packed = Packed()
    tasks = [replace(TASK, receipt=receipt) for receipt in "abc"]
    contents = [write_train_task(task, packed) for task in tasks]
    assert contents == [write_train_task(task) for task in tasks]
    assert all(content["arrays"] is contents[0]["arrays"] for content in contents)
    assert contents[0]["guard"] is not contents[0]["arrays"]
    other = write_train_task(replace(TASK, arrays={"x": np.ones(2, np.float32)}), packed)
    assert digest(read_train_task(other).arrays) == digest({"x": np.ones(2, np.float32)})


def test_a_train_task_without_guard_arrays_has_none() -> None:
    task = TrainTask("r", 1, 0, "a", 0.1, "{}", ARRAYS)
    back = read_train_task(travelled(write_train_task(task)))
    assert back.guard_arrays == {}
    assert (back.receipt, back.federation, back.clip) == ("", "", 0.0)


@given(st.text(max_size=20), st.integers(0, 2**31), st.floats(allow_nan=False))
def test_any_text_and_number_survives_the_wire(text: str, number: int, lr: float) -> None:
    back = read_train_task(travelled(write_train_task(TrainTask(text, number, 0, text, lr, text, {}))))
    assert (back.run, back.round, back.stage_name, back.lr, back.work) == (text, number, text, lr, text)


def test_the_other_messages_survive_the_wire() -> None:
    task = ScoreTask(4, ("cards", "loans"), "{}", ARRAYS, run="r", receipt="abc", federation="north")
    back = read_score_task(travelled(write_score_task(task)))
    assert (back.round, back.stages, back.work, digest(back.arrays)) == (4, ("cards", "loans"), "{}", digest(ARRAYS))
    assert (back.run, back.receipt, back.federation) == ("r", "abc", "north")
    assert back.key == task.key == "r/4/scores"
    assert read_reply(travelled(write_scores(4, {"cards": 0.25}))) == Scores(4, {"cards": 0.25}, "")
    assert read_reply(travelled(write_scores(4, {"cards": 0.25}, "abc"))) == Scores(4, {"cards": 0.25}, "abc")
    assert read_reply(travelled(write_refusal("budget"))) == Refusal("budget")
    assert read_hello(travelled(write_hello(HelloReply("a")))) == HelloReply("a", __version__)
    update = read_reply(travelled(write_update(7, ARRAYS, "abc")))
    assert isinstance(update, Update)
    assert (update.round, digest(update.arrays), update.receipt) == (7, digest(ARRAYS), "abc")
    assert read_reply(travelled(write_update(7, ARRAYS))).receipt == ""


def test_an_array_that_is_a_view_arrives_whole() -> None:
    turned = {"x.lora_B": np.arange(6, dtype=np.float32).reshape(2, 3).T}
    assert np.array_equal(read_reply(travelled(write_update(1, turned))).arrays["x.lora_B"], turned["x.lora_B"])


def test_equal_updates_are_equal_bytes_in_whatever_order_they_were_made() -> None:
    first, second = (
        recorddict_to_proto(write_update(1, dict(items))).SerializeToString()
        for items in (ARRAYS.items(), reversed(ARRAYS.items()))
    )
    assert first == second


def test_what_is_received_can_be_changed() -> None:
    """Arrays are copies: a site that adds to them does not change the message of another site."""
    content = write_train_task(TASK)
    for value in read_train_task(content).arrays.values():
        value += 1
    assert digest(read_train_task(content).arrays) == digest(ARRAYS)


def config(**changes: Any) -> RecordDict:
    """A train task with other settings; None leaves one out."""
    content = write_train_task(TASK)
    settings = {
        **dict(content.config_records["config"]),
        **{key.replace("_", "-"): value for key, value in changes.items()},
    }
    content["config"] = ConfigRecord({key: value for key, value in settings.items() if value is not None})
    return content


@pytest.mark.parametrize(
    "changes",
    [
        {"run": None},
        {"run": 5},
        {"round": "3"},
        {"round": 3.0},
        {"round": True},
        {"lr": 1},
        {"lr": "0.1"},
        {"work": b"{}"},
        {"stage_name": ["a"]},
        {"stage": None},
        {"receipt": None},
        {"receipt": 5},
        {"federation": ["a"]},
        {"clip": 1},
        {"clip": None},
    ],
)
def test_a_train_task_with_a_missing_or_mistyped_field_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(WireError) as caught:
        read_train_task(config(**changes))
    assert next(iter(changes)).replace("_", "-") in str(caught.value)


@pytest.mark.parametrize("read", [read_train_task, read_score_task, read_reply, read_hello])
def test_an_empty_message_is_refused(read: Any) -> None:
    with pytest.raises(WireError, match="no config"):
        read(RecordDict())


def test_a_task_without_arrays_is_refused() -> None:
    for content, read in (
        (write_train_task(TASK), read_train_task),
        (write_score_task(ScoreTask(1, (), "", {})), read_score_task),
    ):
        del content["arrays"]
        with pytest.raises(WireError, match="no arrays"):
            read(content)


@pytest.mark.parametrize("stages", ["cards", 5, None])
def test_a_score_task_needs_a_list_of_stages(stages: Any) -> None:
    content = write_score_task(ScoreTask(1, ("a",), "{}", ARRAYS))
    settings = {**dict(content.config_records["config"]), "stages": stages}
    content["config"] = ConfigRecord({key: value for key, value in settings.items() if value is not None})
    with pytest.raises(WireError, match="stages"):
        read_score_task(content)


def test_another_protocol_is_refused() -> None:
    with pytest.raises(WireError, match="protocol 99"):
        read_hello(write_hello(HelloReply("a", protocol=99)))


# -- replies are not trusted ------------------------------------------------------------------------------------------


def reply(**records: Any) -> RecordDict:
    content = write_update(1, ARRAYS)
    for name, record in records.items():
        content[name] = record
    return content


def test_an_update_with_anything_beside_its_arrays_is_refused() -> None:
    with pytest.raises(WireError, match="no update"):
        read_reply(reply(more=ArrayRecord({"x": Array(np.zeros(2, np.float32))})))


def test_a_reply_without_arrays_and_without_a_refusal_is_refused() -> None:
    with pytest.raises(WireError, match="no update"):
        read_reply(RecordDict({"config": ConfigRecord({"round": 1, "receipt": ""})}))


@pytest.mark.parametrize("number", [None, "1", 1.0, True])
def test_a_reply_without_a_proper_round_is_refused(number: Any) -> None:
    with pytest.raises(WireError, match="round"):
        read_reply(reply(config=ConfigRecord({"receipt": ""} | ({} if number is None else {"round": number}))))


@pytest.mark.parametrize("receipt", [None, 5, b"abc", ["abc"]])
def test_a_reply_without_a_proper_receipt_is_refused(receipt: Any) -> None:
    told = {"round": 1} if receipt is None else {"round": 1, "receipt": receipt}
    with pytest.raises(WireError, match="receipt"):
        read_reply(reply(config=ConfigRecord(told)))


def test_a_receipt_is_kept_up_to_a_bound_and_refused_above_it() -> None:
    """The server keeps it for the site: it must not become a store."""
    assert read_reply(write_update(1, ARRAYS, "x" * MAX_RECEIPT)).receipt == "x" * MAX_RECEIPT
    for content in (write_update(1, ARRAYS, "x" * (MAX_RECEIPT + 1)), write_scores(1, {}, "x" * (MAX_RECEIPT + 1))):
        with pytest.raises(WireError, match=f"a receipt of {MAX_RECEIPT + 1} characters"):
            read_reply(content)


def _pickled(opened: Path) -> bytes:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, (str(opened), "w"))

    stream = io.BytesIO()
    np.save(stream, np.array([Trap()], dtype=object), allow_pickle=True)
    return stream.getvalue()


def array_of(data: bytes, stype: str = "safetensors") -> ArrayRecord:
    return ArrayRecord({"packed": Array("uint8", (len(data),), stype, data)})


@pytest.mark.parametrize("stype", ["safetensors", "numpy.ndarray"])
def test_a_pickled_array_is_refused_and_not_opened(stype: str, tmp_path: Path) -> None:
    with pytest.raises(WireError):
        read_reply(reply(arrays=array_of(_pickled(tmp_path / "opened"), stype)))
    assert not (tmp_path / "opened").exists()


def _table(text: str) -> bytes:
    return len(text).to_bytes(8, "little") + text.encode()


def _one(dtype: str, shape: str, end: int) -> str:
    return f'{{"x":{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[0,{end}]}}}}'


HOSTILE = {
    "nothing": b"",
    "other bytes": b"no arrays",
    "a torn table": _table(_one("F32", "1", 4))[:20],
    "an unknown type": _table(_one("F99", "1", 4)) + b"1234",
    "a type that numpy has not": _table(_one("F8_E4M3", "1", 1)) + b"1",
    "four terabytes": _table(_one("F32", f"{2**40}", 2**42)),
    "a size that overflows": _table(_one("F32", f"{2**62},{2**62}", 4)) + b"1234",
    "a negative size": _table(_one("F32", "-2", 8)) + b"12345678",
    "bytes that no array has": _table(_one("F32", "1", 4)) + b"12345678",
    "arrays that share their bytes": _table(_one("F32", "1", 4)[:-1] + "," + _one("F32", "1", 4)[1:].replace("x", "y")),
    "a table nested deeply": _table("[" * 100_000),
    "a table that never ends": b"\xff" * 8,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("part", ["arrays", "guard"])
def test_bytes_that_are_no_arrays_are_refused_by_server_and_site(data: bytes, part: str) -> None:
    content = write_train_task(TASK)
    content[part] = array_of(data)
    with pytest.raises(WireError):
        read_train_task(content)
    with pytest.raises(WireError):
        read_reply(reply(arrays=array_of(data)))


@pytest.mark.parametrize(
    "record",
    [
        ArrayRecord(),
        ArrayRecord({"x": Array(ARRAYS["x.lora_B"])}),
        ArrayRecord({"packed": Array(ARRAYS["x.lora_B"])}),
        ArrayRecord({**array_of(save(ARRAYS)), "more": Array(ARRAYS["x.lora_B"])}),
    ],
    ids=["none", "as protocol 5", "not packed", "one more"],
)
def test_a_record_that_is_not_packed_is_refused(record: ArrayRecord) -> None:
    with pytest.raises(WireError, match="not packed"):
        read_reply(reply(arrays=record))


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=9).filter(lambda name: name != "__metadata__"),
        arrays(st.sampled_from(["f4", "f2", "f8", "u1", "i8", "?"]), array_shapes(min_dims=0, min_side=0, max_side=4)),
        max_size=5,
    )
)
def test_arrays_arrive_as_they_left_and_equal_arrays_are_equal_bytes(sent: dict[str, NDArray[np.generic]]) -> None:
    record = pack(sent)
    assert len(record) == 1
    found = unpack(record)
    assert list(found) == sorted(sent)
    for name, value in sent.items():
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape)
        assert found[name].tobytes() == value.tobytes()
        assert found[name].flags.writeable
    assert pack(dict(reversed(sent.items()))) == record


@pytest.mark.parametrize(
    ("bound", "most", "words"),
    [("MAX_BYTES", 100, "at most 100"), ("MAX_LINE", 0, "at most .* and 0"), ("MAX_ARRAYS", 1, "2 arrays, at most 1")],
)
def test_an_update_that_is_too_large_is_refused(
    bound: str, most: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(array_record, bound, most)
    with pytest.raises(WireError, match=words):
        read_reply(reply())


@pytest.mark.parametrize(("code", "read"), [("data", "data"), ("x" * 500, "unknown"), (5, "unknown"), ("", "unknown")])
def test_a_code_is_a_word_of_the_list_or_unknown(code: Any, read: str) -> None:
    assert read_reply(RecordDict({"config": ConfigRecord({"refused": code})})) == Refusal(read)


def scored(values: dict[str, Any]) -> RecordDict:
    return RecordDict({"scores": MetricRecord(values), "config": ConfigRecord({"round": 1, "receipt": ""})})


def test_a_whole_number_is_a_score_and_a_list_makes_the_reply_none() -> None:
    assert read_reply(scored({"a": 0.5, "c": 1})) == Scores(1, {"a": 0.5, "c": 1.0})
    with pytest.raises(WireError, match="no number"):
        read_reply(scored({"a": 0.5, "b": [1.0, 2.0]}))


def test_more_scores_than_a_run_has_stages_are_refused() -> None:
    most = {f"t{number}": 1.0 for number in range(MAX_SCORES)}
    assert read_reply(scored(most)) == Scores(1, most)
    with pytest.raises(WireError, match="more than 1000"):
        read_reply(scored({**most, "one more": 1.0}))


@pytest.mark.parametrize("code", [["x"], [], [1], [1.5], [b"x"], 1.5, b"data", True, 2**62])
def test_a_code_of_any_other_type_is_a_refusal_of_no_known_code(code: Any) -> None:
    assert read_reply(RecordDict({"config": ConfigRecord({"refused": code})})) == Refusal("unknown")


@pytest.mark.parametrize("number", [-1, 10**5000], ids=["negative", "of 5,001 digits"])
def test_a_round_that_is_no_count_is_refused(number: int) -> None:
    with pytest.raises(WireError, match="round"):
        read_reply(reply(config=ConfigRecord({"round": number, "receipt": ""})))


# -- who is there -----------------------------------------------------------------------------------------------------


def hello(**changes: Any) -> RecordDict:
    told = {"site": "north", "version": "1", "protocol": PROTOCOL, **changes}
    return RecordDict({"config": ConfigRecord(told)})


@given(st.text(max_size=70) | st.from_regex(NAME))
def test_a_node_is_known_by_a_name_that_could_stand_in_a_site_file_and_by_no_other(name: str) -> None:
    letters = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
    good = 1 <= len(name) <= 64 and name[0] in letters and set(name) <= letters | set("._-")
    if good:
        assert read_hello(hello(site=name)).site == name
    else:
        with pytest.raises(WireError, match="no site can be called"):
            read_hello(hello(site=name))


@pytest.mark.parametrize(
    "changes",
    [
        {"site": "a\n"},
        {"site": "\x1b[31mFAKE"},
        {"site": ["a"]},
        {"version": "x" * 65},
        {"version": "\x1b[2J"},
        {"version": 5},
        {"protocol": float(PROTOCOL)},
        {"protocol": [PROTOCOL]},
        {"protocol": 10**5000},
        {"protocol": str(PROTOCOL)},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_a_node_that_says_anything_else_is_no_site(changes: dict[str, Any]) -> None:
    with pytest.raises(WireError) as caught:
        read_hello(hello(**changes))
    assert str(caught.value).replace("\n  -> ", "").isprintable()


def test_the_size_of_a_task_counts_values_and_text() -> None:
    assert size_of(TASK) == 4 * (6 + 2 + 6) + 2
