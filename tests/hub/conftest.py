"""Signed folders over the tiny model, and somebody who forges them."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.adapter.files import Lineage, write_adapter
from llmchain_fl.config.read import build
from llmchain_fl.config.write import to_toml
from llmchain_fl.core.base_digest import base_digest
from llmchain_fl.core.privacy.durable import make_folder
from llmchain_fl.core.secure.identity import Identity
from llmchain_fl.hub import layout
from llmchain_fl.hub.evidence import Statement
from llmchain_fl.hub.publish import Offer, publish
from llmchain_fl.hub.pull import Wanted, pull
from llmchain_fl.hub.sealing import seal
from llmchain_fl.hub.trust import KEY, Trust, trust_publisher
from llmchain_fl.progress import Silent
from llmchain_fl.run_dir import RunDir
from simulations.run import simulate


class Signer:
    """Two keys, and folders signed with them."""

    own, other = Identity(b"\x01" * 32), Identity(b"\x02" * 32)

    def __init__(self, small: Any) -> None:
        self._small = small

    def make(self, folder: Path, *, moved: float = 0.3, **settings: Any) -> Path:
        """A signed folder of the layout; what is no part of the adapter is empty."""
        task = self._small.task(moved=moved, **{"head": "trained", **settings})
        work = self._small.work(**{"head": "trained", **settings})
        write_adapter(folder, task.resident, task.resident.arrays(), work, Lineage("r1", 4, "cards", ""))
        config = json.loads((folder / layout.CONFIG).read_text())
        (folder / layout.CONFIG).write_text(json.dumps({**config, "base_model_name_or_path": "tiny-bert"}))
        (folder / layout.EVIDENCE).mkdir()
        for name in layout.REQUIRED:
            if not (folder / name).exists():
                (folder / name).write_text("{}")
        self.sign(folder, base_digest=base_digest(self._small.bert))
        return folder

    def sign(self, folder: Path, identity: Identity | None = None, **changes: Any) -> None:
        """Sign the folder as somebody who holds the key, whatever stands in it."""
        told: dict[str, Any] = {"name": "bank", "version": 1, "base_name": "tiny-bert"}
        if (folder / layout.MANIFEST).exists():
            before = json.loads((folder / layout.MANIFEST).read_text())
            told |= {key: before[key] for key in ("name", "version", "parent")}
            told |= {"base_name": before["base"]["name"], "base_digest": before["base"]["digest"]}
        seal(folder, identity or self.own, **{**told, **changes})


@pytest.fixture(scope="session")
def signer(small: Any) -> Signer:
    return Signer(small)


@pytest.fixture(scope="session")
def sealed(signer: Signer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One signed folder with a trained head; copy it before you change it."""
    return signer.make(tmp_path_factory.mktemp("hub") / "sealed")


@pytest.fixture
def trust(signer: Signer) -> Trust:
    """A machine that trusts the first key as north and nobody else."""
    return Trust({"north": signer.own.public})


@dataclass
class Published:
    """A hub with two versions of an adapter of a real private run, and the home of somebody who trusts its publisher.

    Attributes:
        hub, home: folders; copy them before you change them (``Published.copied``).
        own: the publisher's key.
        addresses: of the versions, in order.
    """

    hub: Path
    home: Path
    own: Identity
    addresses: list[str]

    def copied(self, place: Path) -> Published:
        shutil.copytree(self.hub, place / "hub")
        shutil.copytree(self.home, place / "home")
        return Published(place / "hub", place / "home", self.own, list(self.addresses))

    def folder(self, version: int = 2) -> Path:
        return self.hub / "objects" / self.addresses[version - 1]


@pytest.fixture(scope="session")
def run(small: Any, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A tiny private run of two stages."""
    folder = tmp_path_factory.mktemp("run_of_hub")
    records = [
        {"text": text, "label": label, "person": f"p{number}"}
        for number in range(30)
        for label, text in small.labels.items()
        if len(text.split()) == 3
    ]
    (folder / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in records), encoding="utf-8")
    data = {key: str(folder / "records.jsonl") for key in ("train", "test")}
    config = build(
        {
            "seed": 3,
            "model": {"path": str(small.bert), "threads": 1, "max_tokens": 8},
            "adapter": {"rank": 2},
            "task": {"labels": sorted({row["label"] for row in records})},
            "data": {**data, "baseline": 0},
            "sites": {"count": 2},
            "train": {"steps": 1, "sampling_rate": 0.3, "batch_size": 8, "lr": 0.02},
            "privacy": {"enabled": True, "epsilon": 30.0, "noise_multiplier": 1.0},
            "stage": [{"name": "first", "rounds": 1}, {"name": "second", "rounds": 1}],
        }
    )
    made = RunDir.create(folder / "run", to_toml(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("server.app._write_pages", lambda run: None)
        simulate(config, made, Silent())
    return made


STATEMENT = Statement(
    data="made-up messages", intended_use="tests", refused_use="anything else", licence="Apache-2.0", languages=["en"]
)


@pytest.fixture(scope="session")
def published(run: RunDir, signer: Signer, tmp_path_factory: pytest.TempPathFactory) -> Published:
    place = tmp_path_factory.mktemp("published")
    maker = place / "maker"
    make_folder(maker)
    (maker / KEY).write_bytes(b"\x01" * 32)
    offer = Offer(run, "bank", STATEMENT, base_name="tiny-bert")
    addresses = [publish(place / "hub", maker, offer).address for _ in range(2)]
    trust_publisher(place / "home", "north", signer.own.public)
    pull(str(place / "hub"), Wanted("bank"), place / "seen", place / "home", datetime.now(UTC))
    return Published(place / "hub", place / "home", signer.own, addresses)
