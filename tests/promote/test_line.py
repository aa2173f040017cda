"""The pointer moves as a whole, only to what passed; back to an ancestor at once, with the base still in memory."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.adapter.files import Lineage, write_adapter
from llmchain_fl.core.base_digest import base_digest
from llmchain_fl.core.errors import ConfigError, RunError
from llmchain_fl.core.secure.identity import Identity
from llmchain_fl.hub import HubError, Trust, layout, verified
from llmchain_fl.hub.sealing import seal
from llmchain_fl.hub.trust import Seen
from llmchain_fl.promote.follow import Follower
from llmchain_fl.promote.gate import Check, Verdict
from llmchain_fl.promote.line import PROMOTED, ROLLED_BACK, Line, check_verdict
from llmchain_fl.promote.policy import read_policy

OWN = Identity(b"\x01" * 32)
TRUST = Trust({"north": OWN.public})
GOOD = (Check("score", True, 0.01, 0.03, "as good"),)


@pytest.fixture(scope="module")
def versions(small: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Three versions of a line, each the parent of the next, of two ranks."""
    place, parent, found = tmp_path_factory.mktemp("versions"), "", []
    for number, (moved, rank) in enumerate([(0.1, 3), (0.3, 3), (0.5, 2)], 1):
        folder = place / str(number)
        task, work = small.task(head="trained", moved=moved, rank=rank), small.work(head="trained", rank=rank)
        write_adapter(folder, task.resident, task.resident.arrays(), work, Lineage("r", 1, "s", ""))
        told = json.loads((folder / layout.CONFIG).read_text())
        (folder / layout.CONFIG).write_text(json.dumps({**told, "base_model_name_or_path": "tiny-bert"}))
        (folder / layout.EVIDENCE).mkdir()
        for name in layout.REQUIRED:
            if not (folder / name).exists():
                (folder / name).write_text("{}")
        signed = {"name": "bank", "version": number, "base_name": "tiny-bert", "parent": parent}
        parent = seal(folder, OWN, base_digest=base_digest(small.bert), **signed).address
        found.append(verified(folder, TRUST))
    return found


def moved(line: Line, adapter: Any, checks: Any = GOOD) -> None:
    line.decide(adapter, Verdict(adapter.address, line.current, checks), OWN, TRUST)


def test_only_what_passed_is_served_and_a_refusal_is_kept_signed(versions: list[Any], tmp_path: Path) -> None:
    line = Line(tmp_path / "line")
    with pytest.raises(RunError, match="nothing was promoted"):
        line.served(TRUST)
    moved(line, versions[0])
    moved(line, versions[1], (Check("score", False, 0.08, 0.03, "worse"),))
    assert line.served(TRUST).label == "bank@1"
    assert [entry["type"] for entry in line.history()] == ["promoted", "refused"]
    files = {
        name: (line.folder / "verdicts" / f"{one.address}.json") for name, one in zip("ab", versions, strict=False)
    }
    assert check_verdict(files["a"].read_bytes(), OWN.public) is True
    assert check_verdict(files["b"].read_bytes(), OWN.public) is False


@pytest.mark.parametrize("change", ["passed", "value", "candidate", "signer"])
def test_a_verdict_that_was_changed_is_refused(versions: list[Any], tmp_path: Path, change: str) -> None:
    line = Line(tmp_path / "line")
    verdict = Verdict(versions[0].address, "", (Check("score", False, 0.08, 0.03, "worse"),))
    told = json.loads(line.write_verdict(verdict, OWN).read_bytes())
    if change == "passed":
        told["verdict"]["passed"] = told["verdict"]["checks"][0]["passed"] = True
    if change == "value":
        told["verdict"]["checks"][0]["value"] = 0.01
    if change == "candidate":
        told["verdict"]["candidate"] = "0" * 64
    public = Identity(b"\x05" * 32).public if change == "signer" else OWN.public
    with pytest.raises(HubError, match=r"^signature:"):
        check_verdict(json.dumps(told).encode(), public)


def test_a_pointer_that_moved_since_the_comparison_is_not_moved_again(versions: list[Any], tmp_path: Path) -> None:
    line = Line(tmp_path / "line")
    late = Verdict(versions[1].address, line.current, GOOD)
    moved(line, versions[0])
    with pytest.raises(HubError, match=r"^lineage:"):
        line.decide(versions[1], late, OWN, TRUST)
    assert line.served(TRUST).label == "bank@1"


def test_a_rollback_takes_less_than_a_second_and_leaves_the_base_in_memory(
    small: Any, versions: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Line(tmp_path / "line")
    moved(line, versions[0])
    follower = Follower(line, TRUST, str(small.bert))
    assert follower.refresh()
    texts = [row["text"] for row in small.rows(12)]
    first, resident, base = follower.task.predict(texts), follower.resident, follower.resident.base.module
    moved(line, versions[1])
    assert follower.refresh()
    assert follower.task.predict(texts) != first
    monkeypatch.setattr(
        "llmchain_fl.core.adapter.resident.load_base", lambda spec: pytest.fail("the base is read again")
    )
    begun = time.process_time()
    assert line.roll_back(TRUST) == "bank@1"
    assert follower.refresh()
    assert time.process_time() - begun < 1.0
    assert follower.task.predict(texts) == first
    assert follower.resident is resident
    assert follower.resident.base.module is base
    assert not follower.refresh(), "nothing has changed since"
    assert [entry["type"] for entry in line.history()] == [PROMOTED, PROMOTED, ROLLED_BACK]


def test_another_rank_is_another_adapter_over_the_same_base(small: Any, versions: list[Any], tmp_path: Path) -> None:
    line = Line(tmp_path / "line")
    for one in versions:
        moved(line, one)
    follower = Follower(line, TRUST, str(small.bert))
    follower.refresh()
    base = follower.resident.base.module
    assert line.roll_back(TRUST, "bank@1") == "bank@1"
    follower.refresh()
    assert follower.resident.base.module is base
    assert follower.adapter.label == "bank@1"


def test_only_ancestors_are_rolled_back_to_and_none_that_was_taken_back(versions: list[Any], tmp_path: Path) -> None:
    line = Line(tmp_path / "line")
    for one in versions:
        moved(line, one)
    with pytest.raises(RunError, match="no such ancestor"):
        line.roll_back(TRUST, "bank@3")
    gone = Trust(TRUST.publishers, {OWN.public: Seen(revoked={versions[1].address: "bad"})})
    assert line.roll_back(gone) == "bank@1"
    with pytest.raises(RunError, match="no such ancestor"):
        line.roll_back(gone)


def test_what_is_served_and_taken_back_meanwhile_is_not_loaded_again(
    small: Any, versions: list[Any], tmp_path: Path
) -> None:
    line = Line(tmp_path / "line")
    moved(line, versions[0])
    follower = Follower(line, TRUST, str(small.bert))
    follower.refresh()
    with pytest.raises(HubError, match=r"^revoked:"):
        follower.refresh(Trust(TRUST.publishers, {OWN.public: Seen(revoked={versions[0].address: "bad"})}))


def test_a_history_that_was_changed_is_refused_and_the_pointer_is_still_read(
    versions: list[Any], tmp_path: Path
) -> None:
    line = Line(tmp_path / "line")
    moved(line, versions[0])
    moved(line, versions[1])
    file = line.folder / "history.jsonl"
    file.write_bytes(file.read_bytes().replace(b"bank@1", b"bank@9"))
    with pytest.raises(RunError, match="line 1 was changed"):
        line.roll_back(TRUST)
    assert line.served(TRUST).label == "bank@2"


def test_an_adapter_put_under_another_address_is_not_served(versions: list[Any], tmp_path: Path) -> None:
    import shutil

    line = Line(tmp_path / "line")
    moved(line, versions[0])
    shutil.rmtree(line.place(versions[0].address))
    shutil.copytree(versions[1].folder, line.place(versions[0].address))
    with pytest.raises(HubError, match=r"^form: .* another adapter"):
        line.served(TRUST)


@pytest.mark.parametrize(
    ("text", "fault"),
    [("worse = 2\n[[probe]]\nname='a'\ndata='b'", "worse"), ("worse = 0.1", "probe"), ("more = 1", "more"),
     ("[[probe]]\nname='a'\ndata='b'\n[[probe]]\nname='a'\ndata='c'", "one name"), ("=", "TOML")],
)  # fmt: skip
def test_a_policy_with_a_fault_names_it(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "policy.toml").write_text(text)
    with pytest.raises(ConfigError, match=fault):
        read_policy(tmp_path / "policy.toml")
