"""The table of hostile bundles and messages: what is sent, and the word by which the site's audit log tells of it."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import stat
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict

from llmchain_fl.core.score_task import ScoreTask
from llmchain_fl.core.secure.identity import make_identity
from llmchain_fl.core.secure.query import SecureQuery
from llmchain_fl.core.work import GuardSpec, SecureSpec, WorkSpec
from llmchain_fl.onprem.flower_runtime import AGENT_APP, CLIENT_APP, SERVER_APP
from llmchain_fl.requests import write_score_task, write_secure_query

RUN, NODE = 7, 3
MARK = "executed"


class Clinic(Protocol):
    """The site that is attacked; ``key``: its own signed key of round 4."""

    folder: Path
    work: WorkSpec
    arrays: Mapping[str, Any]
    key: bytes

    def train(self, number: int = 3, **changes: Any) -> RecordDict: ...


def bundle(*members: tuple[str, str], link: str = "") -> bytes:
    """A bundle whose modules write a file where they are imported."""
    made = io.BytesIO()
    evil = f"open({MARK!r}, 'w').close()\n"
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("client/app.py", "client/__init__.py", "llmchain_fl/__init__.py", "sitecustomize.py"):
            archive.writestr(zipfile.ZipInfo(name), evil)
        for name, text in members:
            archive.writestr(zipfile.ZipInfo(name), text)
        if link:
            info = zipfile.ZipInfo("records")
            info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, link)
    return made.getvalue()


GOOD = bundle(("pyproject.toml", 'version = "0.9"'))
OLDER = bundle(("pyproject.toml", 'version = "0.8"'))


class Executes:
    """Unpickled, it writes the file."""

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (MARK, "w")


@dataclass(frozen=True)
class Sent:
    """What reaches the executor; ``claims``: the digest that Flower says the bundle has."""

    message: Message
    bundle: bytes = GOOD
    kind: str = CLIENT_APP
    claims: str = ""
    ids: tuple[int, int] = (RUN, NODE)


def train(content: RecordDict, **metadata: Any) -> Message:
    return Message(content, **{"dst_node_id": NODE, "message_type": "train", "ttl": 3600.0, **metadata})


Row = tuple[str, Callable[[Clinic], Sent | Exception]]
"""The decision that the audit log tells, and what is sent."""


def brings(data: bytes, claims: bytes = b"") -> Row:
    """An honest message with another bundle."""
    digest = hashlib.sha256(claims or data).hexdigest()
    return "bundle", lambda clinic: Sent(train(clinic.train(4)), data, claims=digest)


def asks(decision: str, **changes: Any) -> Row:
    """The approved bundle, and another task; what is callable is given the clinic."""

    def sent(clinic: Clinic) -> Sent:
        told = {name: value(clinic) if callable(value) else value for name, value in changes.items()}
        return Sent(train(clinic.train(**{"number": 4, **told})))

    return decision, sent


def works(decision: str, **changes: Any) -> Row:
    """Another work description; ``plan`` and ``train`` are changed within."""

    def work(clinic: Clinic) -> str:
        told = dict(changes)
        for part in ("plan", "train", "adapter", "task", "base"):
            if isinstance(told.get(part), dict):
                told[part] = replace(getattr(clinic.work, part), **told[part])
        return str(replace(clinic.work, **told).to_json())

    return asks(decision, work=work)


def arrays(change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Callable[[Clinic], Any]:
    return lambda clinic: {**clinic.arrays, **change(clinic.arrays)}


def one(arrays: Mapping[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    """One of the arrays, changed."""
    name = min(arrays)
    return {name: change(arrays[name])}


def content(decision: str, change: Callable[[RecordDict], object]) -> Row:
    """The records of an honest task, changed as no server of ours would."""

    def sent(clinic: Clinic) -> Sent:
        records = clinic.train(4)
        change(records)
        return Sent(train(records))

    return decision, sent


def _pickled(records: RecordDict) -> None:
    data = pickle.dumps(Executes())
    records["arrays"] = ArrayRecord({"packed": Array("object", (1,), "numpy.ndarray", data)})


def _packed(data: bytes) -> Callable[[RecordDict], None]:
    return lambda records: records.__setitem__(
        "arrays", ArrayRecord({"packed": Array("uint8", (len(data),), "safetensors", data)})
    )


def _config(records: RecordDict, **changes: Any) -> None:
    told = {**dict(records.config_records["config"]), **changes}
    records["config"] = ConfigRecord({name: value for name, value in told.items() if value is not None})


def _json(change: Callable[[dict[str, Any]], object]) -> Callable[[Clinic], str]:
    def work(clinic: Clinic) -> str:
        tree = json.loads(clinic.work.to_json())
        change(tree)
        return json.dumps(tree)

    return work


def _failed(clinic: Clinic) -> Sent:
    return Sent(Message(Error(code=0, reason=MARK), reply_to=train(clinic.train(4))))


def _scores(clinic: Clinic) -> RecordDict:
    return write_score_task(ScoreTask(4, ("cards",), clinic.work.to_json(), dict(clinic.arrays)))


def sum_of_strangers(clinic: Clinic) -> Sent:
    """Two of the three keys are signed by the server, under the names that the site lists."""
    body = {"run": "run-1", "round": 4, **dict.fromkeys(("mask", "box", "self"), "00" * 32)}
    keys = []
    for name in ("south", "west"):
        server = make_identity(clinic.folder.parent / f"server-{name}.key")
        keys.append(server.signed("key", {**body, "site": name, "identity": server.public}))
    work = replace(clinic.work, secure=SecureSpec(3, 3)).to_json()
    query = SecureQuery("shares", "run-1", 4, work, (clinic.key, *keys))
    return Sent(train(write_secure_query(query), message_type="query.secure"))


def _typed(decision: str, kind: str, **changes: Any) -> Row:
    return decision, lambda clinic: Sent(train(clinic.train(4), message_type=kind, **changes))


ROWS: dict[str, Row] = {
    "bundle: one byte changed": brings(GOOD[:-30] + bytes([GOOD[-30] ^ 1]) + GOOD[-29:]),
    "bundle: an older version, whose approval was taken back": brings(OLDER),
    "bundle: signed with a foreign key": brings(bundle(("META-INF/SIGNATURE", "of somebody"))),
    "bundle: other content under the approved digest": brings(bundle(("x.py", "")), claims=GOOD),
    "bundle: paths out of its folder": brings(bundle((f"../../{MARK}", "x"), (f"a/../../../{MARK}", "x"))),
    "bundle: an absolute path": brings(bundle((f"/tmp/{MARK}", "x"))),
    "bundle: a link to the records": brings(bundle(link="../cards.jsonl")),
    "bundle: 64 MB": brings(bytes(64 << 20)),
    "bundle: a little that unpacks to much": brings(bundle(("zeros", "0" * (64 << 20)))),
    "bundle: another command as its app": brings(bundle(("pyproject.toml", 'clientapp = "os:system"'))),
    "bundle: a pickle": brings(pickle.dumps(Executes())),
    "bundle: nothing": brings(b""),
    "task: an agent": ("kind", lambda clinic: Sent(train(clinic.train(4)), kind=AGENT_APP)),
    "task: a server's": ("kind", lambda clinic: Sent(train(clinic.train(4)), kind=SERVER_APP)),
    "address: of another run": ("address", lambda clinic: Sent(train(clinic.train(4)), ids=(RUN + 1, NODE))),
    "address: to another node": ("address", lambda clinic: Sent(train(clinic.train(4)), ids=(RUN, NODE + 1))),
    "late: its time is over": _typed("late", "train", ttl=1e-9),
    "type: an action that is none": _typed("failed", "train.all"),
    "type: of Flower's own": _typed("failed", "system"),
    "type: an error in place of content": ("failed", _failed),
    "message: not to be read": ("unreadable", lambda clinic: ValueError(MARK)),
    "round: older than one that was paid for": asks("wire", number=2),
    "arrays: another shape": asks("model", arrays=arrays(lambda all_: one(all_, lambda value: value[:1]))),
    "arrays: not a number": asks("wire", arrays=arrays(lambda all_: one(all_, lambda value: value * np.nan))),
    "arrays: of 2 MB": asks("wire", arrays=arrays(lambda all_: {"x.lora_B": np.zeros(1 << 19, np.float32)})),
    "arrays: a name more": asks("model", arrays=arrays(lambda all_: {"x.lora_B": np.zeros((2, 3), np.float32)})),
    "arrays: of another type": asks("wire", arrays=arrays(lambda all_: one(all_, np.float64))),
    "arrays: pickled": content("wire", _pickled),
    "arrays: a table of 2**62 bytes": content("wire", _packed((2**62).to_bytes(8, "little") + b"{}")),
    "arrays: no table": content("wire", _packed(b"\0" * 100)),
    "guard: of a package that the site does not name": works("privacy", guards=(GuardSpec("evil", ()),)),
    "guard: settings that it has not": works("wire", guards=(GuardSpec("distill", (("evil", 1.0),)),)),
    "guard: arrays that nobody asked for": asks("wire", guard_arrays={"evil.x": np.zeros(3, np.float32)}),
    "task kind: of a package that the site does not name": asks(
        "privacy", work=_json(lambda tree: tree["task"].update(kind="evil"))
    ),
    "settings: no privacy": works("privacy", plan=None),
    "settings: no noise": works("privacy", plan={"noise_multiplier": 0.0}),
    "settings: hardly any noise": works("budget", plan={"noise_multiplier": 0.01}),
    "settings: another unit": works("privacy", plan={"unit": "record", "records_per_unit": 1}),
    "settings: a larger delta": works("privacy", plan={"delta": 1e-3}),
    "settings: a clip norm that is none": asks(
        "privacy", work=_json(lambda tree: tree["plan"].update(clip_norm=1e12))
    ),
    "settings: more steps than the site allows": works("privacy", train={"steps": 6}, plan={"steps_per_round": 6}),
    "settings: a larger rank than the site allows": works("wire", adapter={"rank": 9}),
    "settings: another base model": works("model", base={"path": "/etc"}),
    "settings: a base model of a hub": works("model", base={"path": "somebody/model"}),
    "protocol: a field more (newer)": asks("wire", work=_json(lambda tree: tree.update(more=1))),
    "protocol: a field less (older)": asks("wire", work=_json(lambda tree: tree["train"].pop("steps"))),
    "protocol: an entry less (older)": content("wire", lambda records: _config(records, keeps=None)),
    "protocol: a number in place of a text": content("wire", lambda records: _config(records, run=7)),
    "protocol: nothing in it": ("wire", lambda clinic: Sent(train(RecordDict()))),
    "names: a stage that is a path": asks("wire", stage_name="../cards"),
    "names: a run of two lines": asks("wire", run="a\nb"),
    "receipt: that this site never wrote": asks("privacy", receipt="x" * 188),
    "scores: that the site does not share": (
        "privacy",
        lambda clinic: Sent(train(_scores(clinic), message_type="evaluate")),
    ),
    "sum: keys of somebody else": ("secure", sum_of_strangers),
}  # fmt: skip
