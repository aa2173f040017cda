"""Hostile bundles and messages (``hostile.py``): refused, run nowhere, cost nothing, one line in the audit log each.

One clinic for the whole table, after one paid round: a row leaves every file as it was but the audit log, or the rows
after it fail too. All that hostile code and files could do here is to write ``MARK``.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.supercore.fab import Fab
from flwr.supercore.task_identity import TaskIdentity

from client.app import make_app
from client.site import read_site
from llmchain_fl.audit_log import read_log
from llmchain_fl.core.adapter.resident import load_resident
from llmchain_fl.core.adapter.value import fresh_arrays
from llmchain_fl.core.base_digest import base_digest
from llmchain_fl.core.errors import CODES
from llmchain_fl.core.messages import TrainTask
from llmchain_fl.core.secure.query import SecureQuery
from llmchain_fl.onprem import flower_runtime
from llmchain_fl.onprem.flower_runtime import CLIENT_APP, RuntimeTask
from llmchain_fl.onprem.run_site_executor import Approvals
from llmchain_fl.onprem.site_executor import SiteExecutor
from llmchain_fl.onprem.site_notes import declined
from llmchain_fl.onprem.task import Access
from llmchain_fl.requests import write_secure_query, write_train_task


def _table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("table_of_hostility", Path(__file__).with_name("hostile.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


TABLE = _table()
Sent, ROWS, MARK, GOOD, train = TABLE.Sent, TABLE.ROWS, TABLE.MARK, TABLE.GOOD, TABLE.train
RUN, NODE = TABLE.RUN, TABLE.NODE
PEER = f"ed25519:{'0b' * 32}"
SITE = """
name = "clinic"
state = "state"
[data]
train = "{{stage}}.jsonl"
[limits]
epsilon = 60.0
max_steps = 5
max_rank = 8
max_message_mb = 1
base_models = ["{base}"]
[secure.peers]
south = "{peer}"
west = "{peer}"
[approved]
bundles = [{approved}]
"""


class Clinic:
    """A site as ``site up`` runs it; ``reply``: what the last message was answered with."""

    def __init__(self, small: Any, folder: Path) -> None:
        self.small, self.folder, self.file = small, folder, folder / "site.toml"
        rows = [{**row, "person": f"p{number}"} for number, row in enumerate(small.rows(8))]
        (folder / "cards.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        work = small.work(trained=("lora_B",), train={"sampling_rate": 1.0, "steps": 2})
        self.work = replace(work, plan=small.plan(work, unit="person", records_per_unit=2, noise_multiplier=4.0))
        resident = load_resident(self.work.resident)
        names = {name: shape for name, shape in resident.shapes.items() if name in resident.trained_names}
        self.arrays = fresh_arrays(names, self.work.adapter.seed)
        self.approve(GOOD, TABLE.OLDER)
        enter = lambda *told: declined(read_site(self.file), *told)  # noqa: E731
        app = make_app(lambda context: read_site(self.file))
        self.executor = SiteExecutor(app, Approvals(self.file), CLIENT_APP, enter)
        self.pushed: list[Message] = []
        self.key = self.first = b""

    def approve(self, *bundles: bytes) -> None:
        """Write the site file."""
        listed = ", ".join(f'"sha256:{hashlib.sha256(one).hexdigest()}"' for one in bundles)
        base = base_digest(Path(self.work.base.path))
        self.file.write_text(SITE.format(base=base, peer=PEER, approved=listed))

    def train(self, number: int = 3, **changes: Any) -> RecordDict:
        """The content of an honest train task, changed."""
        told = {"run": "run-1", "round": number, "stage": 0, "stage_name": "cards", "lr": 0.01}
        return write_train_task(TrainTask(**{**told, "work": self.work.to_json(), "arrays": self.arrays, **changes}))

    def answer(self, sent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Through the runtime API's half of this machine; what Flower hands over is what ``sent`` says."""

        def pull(client: object) -> Any:
            if isinstance(sent, Exception):
                raise sent
            context = Context(
                run_id=RUN, node_id=NODE, node_config={}, state=RecordDict(), run_config={"sites-dir": "."}
            )
            message = message_from_proto(message_to_proto(sent.message))
            message.metadata.__dict__.update({"_run_id": sent.ids[0], "_dst_node_id": sent.ids[1]})
            return message, context, None, Fab(sent.claims, sent.bundle, {"key": "signature"})

        monkeypatch.setattr(flower_runtime, "_MessageFirst", lambda client: client)
        monkeypatch.setattr(flower_runtime, "pull_task_input", pull)
        monkeypatch.setattr(flower_runtime, "push_message", lambda client, reply, context: self.pushed.append(reply))
        monkeypatch.setattr(flower_runtime, "push_task_output", lambda *told: None)
        kind = CLIENT_APP if isinstance(sent, Exception) else sent.kind
        self.executor.answer(RuntimeTask(Access("127.0.0.1:9", Path()), kind, "token"))

    def lines(self) -> list[dict[str, Any]]:
        """The audit log, verified."""
        return read_log(read_site(self.file).audit.file)

    def files(self) -> dict[str, bytes]:
        """Everything on this disk but the audit log."""
        return {
            str(file.relative_to(self.folder.parent)): file.read_bytes()
            for file in self.folder.parent.rglob("*")
            if file.is_file() and file.name != "audit.jsonl"
        }


@pytest.fixture(scope="module")
def clinic(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    """Round 3 is paid for and sent; the older bundle was approved once, and is not any more."""
    folder = tmp_path_factory.mktemp("hostile") / "clinic"
    folder.mkdir()
    before = TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN, NODE, 1
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        _plug_in(folder.parent, patch)
        made = Clinic(small, folder)
        made.answer(Sent(train(made.train())), patch)
        made.first = made.pushed[-1].content.array_records["arrays"]["packed"].data
        made.approve(GOOD)
        query = write_secure_query(SecureQuery("key", "run-1", 4))
        made.answer(Sent(train(query, message_type="query.secure")), patch)
        made.key = bytes(made.pushed[-1].content.config_records["secure"]["data"])  # type: ignore[arg-type]
        TABLE.sum_of_strangers(made)
        assert [one["decision"] for one in made.lines() if one["type"] == "answered"] == ["answered"] * 2
        yield made
    TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id = before


def _plug_in(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Another package of this machine, with a guard and a task: they write the file where they are imported."""
    told = folder / "evil-1.0.dist-info"
    told.mkdir()
    (folder / "evil_package.py").write_text(f"open({MARK!r}, 'w').close()\nGUARD = KIND = None\n")
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    groups = "[llmchain_fl.guards]\nevil = evil_package:GUARD\n[llmchain_fl.tasks]\nevil = evil_package:KIND\n"
    (told / "entry_points.txt").write_text(groups)
    patch.syspath_prepend(str(folder))


@pytest.mark.parametrize("name", ROWS)
def test_it_is_refused_runs_nowhere_costs_nothing_and_is_one_line_of_the_log(
    name: str, clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    decision, sent = ROWS[name]
    before, lines, path, modules = clinic.files(), clinic.lines(), list(sys.path), set(sys.modules)
    made, clinic.pushed = sent(clinic), []
    clinic.answer(made, monkeypatch)
    assert clinic.files() == before  # no mark, and the ledger as it was
    assert (list(sys.path), "evil_package" in set(sys.modules) - modules) == (path, False)
    told = clinic.lines()[len(lines) :]
    assert [(one["type"], one["decision"]) for one in told] == [
        ("answered" if decision in CODES else "declined", decision)
    ]
    if isinstance(made, Sent) and "bundle" in told[0]:
        assert told[0]["bundle"] == hashlib.sha256(made.bundle).hexdigest()
    for reply in clinic.pushed:
        if reply.has_content():
            assert dict(reply.content.config_records["config"]) == {"refused": decision}
        else:
            assert reply.error.reason in ("the site takes no part in this", "the site's program failed")
    assert len(clinic.pushed) == (not isinstance(made, Exception))


def test_a_message_that_is_played_back_gets_the_same_update_and_costs_nothing(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, lines, clinic.pushed = clinic.files(), clinic.lines(), []
    for _ in range(2):
        clinic.answer(Sent(train(clinic.train())), monkeypatch)
    assert clinic.files() == before
    assert [one["decision"] for one in clinic.lines()[len(lines) :]] == ["answered"] * 2
    sent = [reply.content.array_records["arrays"]["packed"].data for reply in clinic.pushed]
    assert sent == [clinic.first] * 2


def test_where_the_site_approves_whatever_comes_no_line_of_it_runs_either(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, before = clinic.file.read_text(), clinic.files()
    try:
        clinic.file.write_text(file + "any = true\n")
        clinic.answer(Sent(train(clinic.train()), TABLE.bundle((f"../{MARK}", ""))), monkeypatch)
    finally:
        clinic.file.write_text(file)
    assert clinic.lines()[-1]["decision"] == "answered"
    assert clinic.files() == before


def test_there_are_at_least_fifty_rows_of_at_least_twenty_kinds_of_attack() -> None:
    assert len(ROWS) >= 50
    assert {decision for decision, _ in ROWS.values()} > {"bundle", "kind", "address", "late", "failed", "unreadable"}
