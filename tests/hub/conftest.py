"""Signed folders over the tiny model, and somebody who forges them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.adapter.files import Lineage, write_adapter
from llmchain_fl.core.base_digest import base_digest
from llmchain_fl.core.secure.identity import Identity
from llmchain_fl.hub import layout
from llmchain_fl.hub.sealing import seal
from llmchain_fl.hub.trust import Trust


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
