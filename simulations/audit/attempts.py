"""A round has one update: asked again, broken off, or failed between its memory and its seal.

What a site keeps between rounds (what compression left out, a factor of its own) must start each round from what the
*sealed* round before it left. A failed attempt that is trusted is a second view of the same people for one payment: its
noise shows beside that of the round that counts.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
from flwr.app import RecordDict

from client.app import Watch
from client.memory import Kept as Remembered
from client.site import Site
from client.training import LocalResult
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.codec_spec import CodecSpec
from llmchain_fl.core.messages import TrainTask
from llmchain_fl.core.privacy.receipt import mark
from llmchain_fl.privacy.audit import noise_law
from llmchain_fl.privacy.audit.conformance import equal_counts, never
from llmchain_fl.privacy.audit.finding import ALPHA, Finding
from simulations.audit.effort import Effort
from simulations.audit.own_noise import Reading, readable
from simulations.audit.own_reading import joined, vector
from simulations.audit.own_run import FIRST, SECOND, Setting, small
from simulations.audit.own_scores import HELD_OUT, score_of, score_task
from simulations.audit.own_site import OwnSite, Watched, made_up_rows
from simulations.audit.practice import Floats
from simulations.audit.replies import Seen

STEPS = 2


class _Fault(BaseException):
    """What ends a process: no ordinary exception."""


def _end(_site: Site, _task: TrainTask, _result: LocalResult) -> None:
    raise _Fault


def attempts(folder: Path, effort: Effort) -> list[Finding]:
    """Asked again; broken off; and a seal that cannot be written, with each kind of memory."""
    seen = Seen()
    top_k = Setting(small(steps=STEPS, codec=CodecSpec("top-k", 64, 0.05, feedback=True)), name="feedback")
    factor = Setting(small(steps=STEPS), keeps=("lora_A",), name="personal factor")
    return [
        *_asked_again(folder / "again", seen),
        _broken_off(folder / "broken-off", seen),
        _another_plan(folder / "another-plan", seen),
        _scores_again(folder / "scores", seen),
        *_unsealed(folder / "feedback", readable(top_k), "feedback", seen),
        *_unsealed(folder / "factor", readable(factor), "personal", seen),
        _unwritten(folder / "unwritten", readable(top_k), seen),
        seen.finding("attempts"),
    ]


def _asked_again(folder: Path, seen: Seen) -> list[Finding]:
    """The same round four times: as it was, with another adapter and rate, for another stage, and after a restart."""
    reading, site = readable(Setting(small())), OwnSite(folder, seen)
    setting = reading.setting
    site.write(SECOND, made_up_rows(setting.work.task, ["ann", "bob"]))
    watched, first = Watched(), site.train(setting.task(1, reading.lr))
    before = site.lines()
    other = {name: value + np.float32(1) for name, value in setting.arrays().items()}
    again = [
        site.train(setting.task(1, reading.lr), watched),
        site.train(setting.task(1, reading.lr / 2, other), watched),
        OwnSite(folder, seen).train(setting.task(1, reading.lr), watched),
    ]
    different = sum(_bytes(reply) != _bytes(first) or not _bytes(first) for reply in again)
    return [
        never("another update of a round", different, "Replies to a sealed round that were not its bytes."),
        never("trained again", watched.rounds, "Rounds trained although they were sealed."),
        never("receipts alike", 4 - len({_receipt(reply) for reply in (first, *again)}), "Of four of one state."),
        equal_counts("lines of a round asked again", len(before), len(site.lines()), "Lines of the ledger."),
    ]


def _bytes(reply: RecordDict) -> dict[str, bytes]:
    record = reply.array_records.get("arrays")
    return {} if record is None else {name: value.data for name, value in record.items()}


def _receipt(reply: RecordDict) -> str:
    return str(reply.config_records["config"].get("receipt", ""))


def _another_plan(folder: Path, seen: Seen) -> Finding:
    """A round that was paid for and broke off is not done with less noise, more steps or for another stage."""
    site, plain = OwnSite(folder, seen), Setting(small())
    site.write(SECOND, made_up_rows(plain.work.task, ["ann"])).write(FIRST, [])
    with contextlib.suppress(_Fault):
        site.train(plain.task(1, 1.0), _end)
    others = [
        Setting(small(noise_multiplier=0.5)).task(1, 1.0),
        Setting(small(steps=9)).task(1, 1.0),
        Setting(small(sampling_rate=1.0)).task(1, 1.0),
        plain.task(1, 1.0, stage=FIRST),
    ]
    done = sum("arrays" in site.train(task) for task in others)
    return never("another plan under a reservation", done, "Updates of a paid round under another plan.")


def _scores_again(folder: Path, seen: Seen) -> Finding:
    """Scores asked for twice are the same numbers."""
    site, setting = OwnSite(folder, seen), Setting(small(score_noise=0.1))
    site.write(SECOND, made_up_rows(setting.work.task, ["ann", "bob", "eve"]), HELD_OUT)
    task = score_task(setting, setting.arrays())
    values = [score_of(site.score(task)) for _ in range(2)]
    return never("other scores of a round", values[0] != values[1], "Scores that were asked for again.")


def _broken_off(folder: Path, seen: Seen) -> Finding:
    """The process ends after training: the round is on record, and its second attempt costs nothing."""
    site, setting = OwnSite(folder, seen), Setting(small())
    site.write(SECOND, made_up_rows(setting.work.task, ["ann"]))
    with contextlib.suppress(_Fault):
        site.train(setting.task(1, 1.0), _end)
    after_fault = site.lines()
    site.train(setting.task(1, 1.0))
    wrong = (after_fault != ["reserve"]) + (site.lines() != ["reserve", "seal"])
    return never("a broken-off round of a site", wrong, "Times that the ledger did not say what was paid and sealed.")


def _unsealed(folder: Path, reading: Reading, purpose: str, seen: Seen) -> list[Finding]:
    """Round 2 fails at its seal, the memory is written; then round 2 again, and on another site round 3."""
    findings = []
    for number, then in ((2, "again"), (3, "the next round")):
        site, setting = OwnSite(folder / str(number), seen), reading.setting
        site.write(SECOND, [])
        site.train(setting.task(1, reading.lr))
        start = _memory(site, purpose).after
        site.train(setting.task(2, reading.lr), _no_room_for(site, "gate/2"))
        failed = _memory(site, purpose)
        _room_again(site, "gate/2")
        reply = site.train(setting.task(number, reading.lr))
        memory = _memory(site, purpose)
        name = f"{setting.name}, {then}"
        wrong = (failed.round != 2) + (not _same(memory.before, start)) + ("arrays" not in reply)
        words = "Memory that an unsealed attempt left and a later round started from."
        findings.append(never(f"unsealed memory trusted ({name})", wrong, words))
        noise = _noise(reading, reply, memory, purpose, start) if "arrays" in reply else np.zeros(1)
        findings.append(noise_law.noise_size(noise, reading.std, ALPHA / 4, f"noise after a failed seal ({name})"))
    return findings


def _unwritten(folder: Path, reading: Reading, seen: Seen) -> Finding:
    """The memory cannot be written: then no update of that round may ever leave, or the memory must know it."""
    site, setting = OwnSite(folder, seen), reading.setting
    site.write(SECOND, [])
    file = site.site.memory("gate", "feedback").file
    replies = [site.train(setting.task(1, reading.lr), lambda *_: (file / "in-the-way").mkdir(parents=True))]
    (file / "in-the-way").rmdir()
    file.rmdir()
    replies.append(site.train(setting.task(1, reading.lr)))
    known = _memory(site, "feedback").payload == site.site.open_ledger("person").seal_of("gate/1") != ""
    wrong = sum("arrays" in reply for reply in replies) * (not known)
    return never("sealed without its memory", wrong, "Updates that left while what they left out was not kept.")


def _noise(reading: Reading, reply: RecordDict, memory: Remembered, purpose: str, start: Arrays) -> Floats:
    """Of what the round added: to the memory of a factor, or to what was sent and to what compression left out."""
    sent = vector(reply, reading.setting)
    added = joined(memory.after) - joined(start)
    return added if purpose != "feedback" or sent is None else added + sent


def _same(one: Arrays, other: Arrays) -> bool:
    return set(one) == set(other) and all(np.array_equal(value, other[name]) for name, value in one.items())


def _memory(site: OwnSite, purpose: str) -> Remembered:
    memory = site.site.memory("gate", purpose).read()
    return Remembered(0, "", {}, {}) if memory is None else memory


def _sealed_file(site: OwnSite, key: str) -> Path:
    return site.site.ledger_folder / "sealed" / f"{mark(key)}.bin"


def _no_room_for(site: OwnSite, key: str) -> Watch:
    """Make the seal of ``key`` fail, between training and the seal: a folder stands where its file belongs."""

    def block(_site: Site, _task: TrainTask, _result: LocalResult) -> None:
        (_sealed_file(site, key) / "in-the-way").mkdir(parents=True)

    return block


def _room_again(site: OwnSite, key: str) -> None:
    place = _sealed_file(site, key)
    if place.is_dir():
        (place / "in-the-way").rmdir()
        place.rmdir()
