"""A server from its file over real sockets: signed folders, a revocation while it runs, the openai client."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from llmchain_fl.adapter.files import Lineage, write_adapter
from llmchain_fl.cli.serve import app
from llmchain_fl.core.base_digest import base_digest
from llmchain_fl.core.errors import ConfigError, LlmchainError
from llmchain_fl.core.secure.identity import Identity
from llmchain_fl.hub import layout
from llmchain_fl.hub.sealing import seal
from llmchain_fl.hub.trust import Seen, remember, trust_publisher
from llmchain_fl.serve.settings import read_settings
from llmchain_fl.serve.tokens import new_token, token_hash
from llmchain_fl.serve.up import open_server

SIGNER = Identity(b"\x01" * 32)
TOKEN, PERSON = new_token(), new_token()


def signed(small: Any, folder: Path, name: str, kind: str = "classification", moved: float = 0.3) -> str:
    """A signed folder; its address."""
    task, work = small.task(kind, moved=moved), small.work(kind)
    write_adapter(folder, task.resident, task.resident.arrays(), work, Lineage("r1", 1, "first", ""))
    config = json.loads((folder / layout.CONFIG).read_text())
    (folder / layout.CONFIG).write_text(json.dumps({**config, "base_model_name_or_path": "tiny"}))
    (folder / layout.EVIDENCE).mkdir()
    for one in layout.REQUIRED:
        if not (folder / one).exists():
            (folder / one).write_text("{}")
    base = small.bert if kind == "classification" else small.llama
    return str(seal(folder, SIGNER, name=name, version=1, base_name="tiny", base_digest=base_digest(base)).address)


def serve_file(folder: Path, small: Any, names: list[str], kind: str = "classification") -> Path:
    base = small.bert if kind == "classification" else small.llama
    adapters = "".join(f'[[adapter]]\nfolder = "{name}"\n' for name in names)
    labels = ", ".join(f'"{name}@1"' for name in names)
    text = f'port = 0\ngrpc_port = 0\nthreads = 1\nbase = "{base}"\n{adapters}[tenant.north]\nadapters = [{labels}]\n'
    text += f'tokens = ["{token_hash(TOKEN)}"]\npersons = {{ann = "{token_hash(PERSON)}"}}\n'
    text += '[queue]\nbatch = 4\n[feedback]\nstore = "kept/feedback.sqlite"\nrows_per_day = 3\n'
    (folder / "serve.toml").write_text(text)
    return folder / "serve.toml"


class Up:
    """A server on a thread; ``url`` once it is ready."""

    def __init__(self, file: Path, load: Any) -> None:
        self.there, self.url, self.grpc = threading.Event(), "", ""
        self.running = open_server(read_settings(file), told=self._told, load=load)
        self.thread = threading.Thread(target=self.running.run, daemon=True)
        self.thread.start()
        assert self.there.wait(90)

    def _told(self, http: str, grpc: str) -> None:
        self.url, self.grpc = http, grpc
        self.there.set()

    def stop(self) -> None:
        self.running.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.fixture(scope="module")
def labels(small: Any, tools: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Up, Path, list[str]]]:
    folder = tmp_path_factory.mktemp("labels")
    trust_publisher(folder / "hub-home", "north", SIGNER.public)
    addresses = [signed(small, folder / name, name, moved=moved) for name, moved in (("one", 0.3), ("two", 0.6))]
    up = Up(serve_file(folder, small, ["one", "two"]), tools.fresh_base)
    yield up, folder, addresses
    up.stop()


def asked(up: Up, token: str, route: str, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(up.url + route, json=body, headers={"authorization": f"Bearer {token}"}, timeout=30)


def test_signed_adapters_answer_over_a_socket_by_their_address(labels: Any) -> None:
    up, _, addresses = labels
    found = [asked(up, TOKEN, "/v1/classify", {"input": "card lost", "model": name}).json() for name in ("one", "two")]
    assert [one["adapter"] for one in found] == addresses
    assert found[0]["results"][0]["probability"] != found[1]["results"][0]["probability"]
    assert up.grpc


def test_feedback_of_a_person_is_kept_only_with_the_receipt_of_an_own_answer(labels: Any) -> None:
    up, _, _ = labels
    answer = asked(up, PERSON, "/v1/classify", {"input": "card lost", "model": "one@1"}).json()
    (one,) = answer["results"]
    body = {"request_id": answer["id"], "model": "one@1", "receipt": one["receipt"], "input": "card lost"}
    body |= {"output": one["label"], "kind": "correct", "correction": "other"}
    forged = [{"input": "card"}, {"output": "x"}, {"receipt": "0" * 64}, {"request_id": "req-" + "0" * 24}]
    for wrong in [*forged, {"model": "two@1"}]:
        assert asked(up, PERSON, "/v1/feedback", {**body, **wrong}).status_code == 404
    assert asked(up, PERSON, "/v1/feedback", {**body, "correction": "no label"}).status_code == 400
    assert asked(up, PERSON, "/v1/feedback", {**body, "kind": "down"}).status_code == 400
    assert asked(up, PERSON, "/v1/feedback", {**body, "person": "bob"}).status_code == 403
    assert asked(up, TOKEN, "/v1/feedback", {**body, "person": "bob"}).status_code == 403
    assert asked(up, PERSON, "/v1/feedback", {**body, "person": " ANN"}).status_code == 201
    assert asked(up, PERSON, "/v1/feedback", body).status_code == 201
    assert asked(up, PERSON, "/v1/feedback", {**body, "correction": "rates"}).status_code == 409
    store = up.running.desk.store  # type: ignore[union-attr]
    assert [(one.told.person, one.told.correction) for one in store.records()] == [("ann", "other")]


def test_a_flood_by_one_account_ends_at_its_days_bound(labels: Any) -> None:
    up, _, _ = labels
    found = []
    for n in range(5):
        answer = asked(up, PERSON, "/v1/classify", {"input": f"pay {n}", "model": "one@1"}).json()
        (one,) = answer["results"]
        body = {"request_id": answer["id"], "model": "one@1", "receipt": one["receipt"], "input": f"pay {n}"}
        found.append(asked(up, PERSON, "/v1/feedback", {**body, "output": one["label"], "kind": "down"}).status_code)
    assert found[-1] == 429
    assert len(up.running.desk.store.records("person = 'ann'")) == 3  # type: ignore[union-attr]


def test_consent_taken_back_deletes(labels: Any) -> None:
    up, _, _ = labels
    consent = {"version": "2026-11", "scope": "train", "given": True}
    assert asked(up, PERSON, "/v1/consent", consent).json()["deleted"] == 0
    assert asked(up, TOKEN, "/v1/consent", consent).status_code == 403
    assert asked(up, PERSON, "/v1/consent", {**consent, "given": False}).json()["deleted"] == 3


def test_a_folder_that_was_changed_or_is_not_trusted_is_not_served(small: Any, labels: Any, tmp_path: Path) -> None:
    signed(small, tmp_path / "one", "one")
    file = serve_file(tmp_path, small, ["one"])
    with pytest.raises(LlmchainError, match="publisher"):
        open_server(read_settings(file))
    trust_publisher(tmp_path / "hub-home", "north", SIGNER.public)
    (tmp_path / "one" / layout.WORK).write_bytes((tmp_path / "one" / layout.WORK).read_bytes() + b" ")
    with pytest.raises(LlmchainError, match=r"size|hash"):
        open_server(read_settings(file))


def test_check_verifies_the_folders_and_says_who_may_use_what(labels: Any) -> None:
    _, folder, addresses = labels
    done = CliRunner().invoke(app, ["check", str(folder / "serve.toml")])
    assert [line.split()[0] for line in done.output.splitlines()] == ["one@1", "two@1", "north:"]
    assert addresses[0] in done.output
    told = (folder / "serve.toml").read_text().replace('adapters = ["one@1", "two@1"]', 'adapters = ["three@1"]')
    (folder / "wrong.toml").write_text(told)
    assert "three@1 is not served" in str(CliRunner().invoke(app, ["check", str(folder / "wrong.toml")]).exception)


def test_a_port_that_is_taken_is_one_clear_error(small: Any, labels: Any, tmp_path: Path) -> None:
    up, folder, _ = labels
    settings = read_settings(folder / "serve.toml").model_copy(update={"port": int(up.url.rpartition(":")[2])})
    no_desk = settings.model_copy(update={"feedback": settings.feedback.model_copy(update={"store": ""})})
    with pytest.raises(ConfigError, match="cannot be had"):
        open_server(no_desk).run()


def test_an_adapter_that_is_taken_back_while_it_is_served_is_a_404(labels: Any) -> None:
    up, folder, addresses = labels
    remember(folder / "hub-home", SIGNER.public, Seen(revoked={addresses[1]: "wrong"}))
    assert asked(up, TOKEN, "/v1/classify", {"input": "card", "model": "two"}).status_code == 404
    assert asked(up, TOKEN, "/v1/classify", {"input": "card", "model": "one"}).status_code == 200


def test_the_openai_client_works_unchanged(small: Any, tools: Any, tmp_path: Path) -> None:
    openai = pytest.importorskip("openai", reason="openai is not installed")
    trust_publisher(tmp_path / "hub-home", "north", SIGNER.public)
    signed(small, tmp_path / "writer", "writer", "causal-lm")
    up = Up(serve_file(tmp_path, small, ["writer"], "causal-lm"), tools.fresh_base)
    try:
        client = openai.OpenAI(base_url=f"{up.url}/v1", api_key=TOKEN, max_retries=0)
        assert [one.id for one in client.models.list()] == ["writer@1"]
        whole = client.completions.create(model="writer@1", prompt="card lost", max_tokens=8, seed=1)
        parts = client.completions.create(model="writer@1", prompt="card lost", max_tokens=8, seed=1, stream=True)
        assert "".join(part.choices[0].text for part in parts) == whole.choices[0].text
        chat = client.chat.completions.create(
            model="writer", messages=[{"role": "user", "content": "why"}], max_tokens=5
        )
        assert chat.choices[0].message.role == "assistant"
        assert chat.usage.total_tokens == chat.usage.prompt_tokens + chat.usage.completion_tokens
        with pytest.raises(openai.NotFoundError):
            client.completions.create(model="other", prompt="a")
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=f"{up.url}/v1", api_key="x", max_retries=0).models.list()
    finally:
        up.stop()
