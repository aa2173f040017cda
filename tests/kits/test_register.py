"""The roster's keys in a SuperLink: one that is made up, and a real one."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flwr.proto.control_pb2 import ListNodesResponse, RegisterNodeResponse, UnregisterNodeResponse
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.error import FlowerError

from llmchain_fl.core.errors import ConfigError, RunError
from llmchain_fl.onprem.certificates import utc_now
from llmchain_fl.onprem.keys import make_keys, node_pem
from llmchain_fl.onprem.kit import read_coordinator_kit
from llmchain_fl.onprem.register import Outcome, control_of, register_all, register_kit
from llmchain_fl.onprem.roster import Roster, read_roster, write_roster
from llmchain_fl.onprem.site_check.coordinator import look

DAY = "2026-12-01"


class Link:
    """A SuperLink's book of nodes: a key is taken once, and stays taken when its node is unregistered."""

    def __init__(self) -> None:
        self.nodes: list[NodeInfo] = []
        self.asked: list[str] = []

    def ListNodes(self, request: Any) -> ListNodesResponse:
        return ListNodesResponse(nodes_info=self.nodes)

    def RegisterNode(self, request: Any) -> RegisterNodeResponse:
        self.asked.append(request.name)
        if any(node.public_key == request.public_key for node in self.nodes):
            raise FlowerError(23, "in use")
        self.nodes.append(NodeInfo(node_id=len(self.nodes) + 1, public_key=request.public_key, status="registered"))
        return RegisterNodeResponse(node_id=len(self.nodes))

    def UnregisterNode(self, request: Any) -> UnregisterNodeResponse:
        self.nodes[request.node_id - 1].status = "unregistered"
        return UnregisterNodeResponse()


@pytest.fixture
def roster(tmp_path: Path) -> Roster:
    made = Roster(federation="lab")
    for name in ("north", "south"):
        made = made.enter(make_keys(tmp_path / name, name), "made", DAY)
    return made


def test_a_superlink_that_has_forgotten_everything_is_told_every_key(roster: Roster) -> None:
    link = Link()
    assert register_all(roster, link) == Outcome(registered=["north", "south"])
    assert [node.public_key for node in link.nodes] == [node_pem(told.node_key) for told in roster.sites.values()]
    assert link.asked == ["north", "south"]


def test_asked_again_nothing_changes(roster: Roster) -> None:
    link = Link()
    register_all(roster, link)
    assert register_all(roster, link) == Outcome(known=["north", "south"])
    assert link.asked == ["north", "south"]


def test_a_revoked_key_is_unregistered_once(roster: Roster) -> None:
    link = Link()
    register_all(roster, link)
    revoked = roster.revoke("north", DAY)
    assert register_all(revoked, link) == Outcome(known=["south"], unregistered=["north"])
    assert register_all(revoked, link) == Outcome(known=["south"])
    assert register_all(revoked, Link()) == Outcome(registered=["south"])


@pytest.mark.parametrize("listed", [True, False])
def test_a_key_that_was_unregistered_is_told_with_the_way_out_and_the_others_are_seen_to(
    roster: Roster, listed: bool
) -> None:
    link = Link()
    register_all(roster.revoke("south", DAY), link)
    link.nodes[0].status = "unregistered"
    if not listed:
        link.ListNodes = lambda request: ListNodesResponse()  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match="north: its key was unregistered once") as error:
        register_all(roster, link)
    assert error.value.remedy.endswith("provision reissue north")
    assert [node.status for node in link.nodes] == ["unregistered", "registered"]


def test_a_node_that_was_never_on_the_roster_is_left_and_told(roster: Roster) -> None:
    link = Link()
    link.nodes.append(NodeInfo(node_id=1, public_key=b"another", status="online"))
    assert register_all(roster, link) == Outcome(registered=["north", "south"], strangers=[1])
    assert link.nodes[0].status == "online"


def test_a_superlink_that_refuses_or_is_not_there_is_a_fault_in_words(roster: Roster) -> None:
    link = Link()

    def refuse(request: Any) -> Any:
        raise FlowerError(9, "no")

    link.RegisterNode = refuse  # type: ignore[method-assign]
    with pytest.raises(RunError, match=r"did not take the roster \(code 9\)"):
        register_all(roster, link)


def test_the_kits_roster_is_entered_where_its_own_machine_reaches_it_and_ends_are_told(
    kit: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    link, asked = Link(), []

    @contextlib.contextmanager
    def control(address: str, authority: Path) -> Iterator[Link]:
        asked.append((address, authority.name))
        yield link

    monkeypatch.setattr("llmchain_fl.onprem.register.control_of", control)
    monkeypatch.setattr("llmchain_fl.onprem.register.utc_now", lambda: kit.now + timedelta(days=340))
    assert register_kit(kit.tree.coordinator) == Outcome(registered=["north", "south", "west"])
    assert asked == [("127.0.0.1:8000", "ca.crt")]
    assert "server.crt ends on 2027-12-01: llmchain-fl provision renew" in caplog.text
    assert "ca.crt ends" not in caplog.text


@pytest.fixture
def superlink(lab: Any) -> Iterator[str]:
    """A SuperLink with the coordinator's kit."""
    lab.provision(now=utc_now())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    kit = lab.tree.coordinator
    program = str(Path(sys.executable).with_name("flower-superlink"))
    words = [
        "--ssl-ca-certfile",
        kit / "ca.crt",
        "--ssl-certfile",
        kit / "server.crt",
        "--ssl-keyfile",
        kit / "server.key",
    ]
    words += ["--enable-supernode-auth", "--host", "127.0.0.1", "--port", str(port), "--isolation", "process"]
    told = (kit / "environment").read_text().split()
    environment = {**os.environ, **dict(line.split("=", 1) for line in told), "FLWR_HOME": str(kit / "flower")}
    with (lab.folder / "superlink.log").open("wb") as log:
        process = subprocess.Popen([program, *map(str, words)], env=environment, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 120
        while time.monotonic() < end and process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.2)
        yield f"localhost:{port}"
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.mark.slow
@pytest.mark.flower
def test_a_real_superlink_with_the_kits_certificate_takes_the_roster(
    lab: Any, superlink: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    roster, kit = read_roster(lab.tree.roster), lab.tree.coordinator
    with control_of(superlink, kit / "ca.crt") as control:
        assert register_all(roster, control) == Outcome(registered=["north", "south", "west"])
        assert register_all(roster, control) == Outcome(known=["north", "south", "west"])
        revoked = roster.revoke("north", DAY)
        assert register_all(revoked, control).unregistered == ["north"]
        assert register_all(revoked, control) == Outcome(known=["south", "west"])
        with pytest.raises(ConfigError, match="unregistered once"):
            register_all(roster, control)
    write_roster(lab.tree.roster, revoked)
    told = read_coordinator_kit(kit).model_copy(update={"reach": superlink})
    monkeypatch.setattr("llmchain_fl.onprem.register.read_coordinator_kit", lambda folder: told)
    assert register_kit(kit) == Outcome(known=["south", "west"])
    seen = look(superlink, lab.tree.site("north") / "ca.crt")
    assert not seen.fault
    assert seen.offset is not None
    assert abs(seen.offset) < 5
