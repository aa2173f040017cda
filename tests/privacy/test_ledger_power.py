"""The ledger after a power cut: what was not flushed may be gone, in any combination. A kill cannot show this.

A model of a disk follows every call that the ledger makes: what a file held when it was last flushed, which names a
folder had when it was last flushed. After each call the power fails: only what was flushed is there (or, in the mixed
cases, also some of the rest), and the ledger that starts from it must know everything that any call had promised.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy import durable
from llmchain_fl.core.privacy.register import Stay
from llmchain_fl.privacy.drill.scratch import GROUP, groups_of, open_ledger, read_log, release

Image = dict[str, bytes | None]
"""Path under the root -> content; None: a folder."""


@dataclass(frozen=True)
class Facts:
    """What had been promised to the outside by then."""

    begun: tuple[int, ...] = ()
    sealed: tuple[tuple[str, bytes], ...] = ()
    people: tuple[str, ...] = ()
    receipt: str = ""


@dataclass
class Disk:
    """What is there (on the real disk, under ``root``) and what would be there after a power cut."""

    root: Path
    draw: random.Random
    facts: Facts = Facts()
    names: dict[Path, int] = field(default_factory=dict)
    opened: dict[int, Path] = field(default_factory=dict)
    seen: dict[int, bytes | None] = field(default_factory=dict)
    flushed: dict[int, bytes] = field(default_factory=dict)
    entries: dict[int, dict[str, int]] = field(default_factory=dict)
    images: list[tuple[Image, Facts]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.name(self.root)

    def name(self, path: Path) -> None:
        self.names.setdefault(path, len(self.seen))
        self.seen.setdefault(self.names[path], None)

    def listing(self, folder: Path) -> dict[str, int]:
        return {path.name: number for path, number in self.names.items() if path.parent == folder != path}

    def after(self, call: str, arguments: tuple[Any, ...]) -> None:
        if call in ("open", "mkdir"):
            self.name(Path(arguments[0]))
        if call == "replace":
            self.names[Path(arguments[1])] = self.names.pop(Path(arguments[0]))
        elif call == "unlink":
            del self.names[Path(arguments[0])]
        for path, number in self.names.items():
            self.seen[number] = path.read_bytes() if path.is_file() else None
        if call == "fsync":
            path = self.opened[arguments[0]]
            if path.is_dir():
                self.entries[self.names[path]] = self.listing(path)
            else:
                self.flushed[self.names[path]] = path.read_bytes()
        folders = {number: path for path, number in self.names.items() if path.is_dir()}
        for chance in (0.0, 0.3, 0.5, 0.7, 0.9):
            image: Image = {}
            self.cut(0, "", chance, folders, image)
            self.images.append((image, self.facts))

    def cut(self, folder: int, prefix: str, chance: float, folders: dict[int, Path], image: Image) -> None:
        """The power fails; each change that was not flushed survives with this chance."""
        kept = self.draw.random() < chance
        listed = self.listing(folders[folder]) if kept else self.entries.get(folder, {})
        for name, number in listed.items():
            if number in folders:
                image[prefix + name] = None
                self.cut(number, prefix + name + "/", chance, folders, image)
            else:
                image[prefix + name] = self.content(number, chance)

    def content(self, number: int, chance: float) -> bytes:
        """What was flushed; by chance also the first bytes of what was written since, or all of them."""
        seen, flushed = self.seen[number] or b"", self.flushed.get(number, b"")
        if not seen.startswith(flushed) or self.draw.random() >= chance:
            return flushed
        return seen[: self.draw.choice([len(seen), self.draw.randint(len(flushed), len(seen))])]


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    root = tmp_path / "disk"
    root.mkdir()
    model = Disk(root, random.Random(5))
    for call in ("open", "write", "ftruncate", "replace", "unlink", "mkdir", "fsync"):
        real = (lambda descriptor: None) if call == "fsync" else getattr(os, call)
        monkeypatch.setattr(os, call, follow(model, call, real))
    return model


def follow(model: Disk, call: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def followed(*arguments: Any, **named: Any) -> Any:
        result = real(*arguments, **named)
        if call == "open":
            model.opened[result] = Path(arguments[0])
        touched = model.opened[arguments[0]] if isinstance(arguments[0], int) else Path(arguments[0])
        if touched.is_relative_to(model.root):
            model.after(call, arguments)
        return result

    return followed


def play(disk: Disk, rounds: int = 3) -> list[tuple[Image, Facts]]:
    """Some rounds on the modelled disk; every state that a power cut could leave, with what was promised by then."""
    ledger, facts = open_ledger(disk.root), Facts()
    for number in range(1, rounds + 1):
        ledger.acknowledge(facts.receipt)
        person, key, payload = f"person {number}", release(number).key, b"update %d" % number
        assert ledger.reserve(release(number), [(GROUP, [person])])[0].all()
        facts = disk.facts = Facts((*facts.begun, number), facts.sealed, (*facts.people, person), facts.receipt)
        disk.facts = Facts(facts.begun, (), facts.people, facts.receipt)  # while sealing, the oldest bytes may go
        ledger.seal(key, payload)
        sealed = (*facts.sealed, (key, payload))[-1:]
        facts = disk.facts = Facts(facts.begun, sealed, facts.people, ledger.receipt())
    return disk.images


def found(images: list[tuple[Image, Facts]], folder: Path) -> dict[str, int]:
    """How many of the states are ``kept`` in full, ``refused``, or have ``lost`` something without a word."""
    outcomes = {"kept": 0, "refused": 0, "lost": 0}
    different = {(tuple(sorted(image.items(), key=str)), facts) for image, facts in images}
    for pairs, facts in different:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, data in pairs:
            if data is None:
                (folder / name).mkdir(parents=True, exist_ok=True)
            else:
                (folder / name).write_bytes(data)
        outcomes[look(folder, facts)] += 1
    return outcomes


def look(folder: Path, facts: Facts) -> str:
    try:
        ledger = open_ledger(folder)
        ledger.acknowledge(facts.receipt)
        whole = {release(number).key for number in facts.begun} <= set(read_log(folder).reserved)
        whole &= all(ledger.sealed(key) == payload for key, payload in facts.sealed)
        whole &= groups_of(folder, facts.people) == [{Stay(GROUP)}] * len(facts.people)
    except PrivacyError:
        return "refused"
    return "kept" if whole else "lost"


def test_no_power_cut_at_any_call_takes_back_a_promise_or_stops_the_ledger(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = play(disk)
    monkeypatch.undo()
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    outcomes = found(images, tmp_path / "after")
    assert outcomes["kept"] > 80
    assert (outcomes["lost"], outcomes["refused"]) == (0, 0)


@pytest.mark.parametrize("forgotten", ["file", "folder"])
def test_a_ledger_that_forgets_to_flush_is_found_by_this(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten: str
) -> None:
    real = os.fsync

    def some(descriptor: int) -> None:
        if disk.opened[descriptor].is_dir() != (forgotten == "folder"):
            real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", some)
        images = play(disk, 1)
    monkeypatch.undo()
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    outcomes = found(images, tmp_path / "after")
    assert outcomes["lost"] + outcomes["refused"] > 0


def test_a_ledger_whose_anchor_is_written_first_is_found_by_this(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmchain_fl.core.privacy import store

    late: list[tuple[Path, int, bytes]] = []
    anchor = store.write_anchor

    def first(path: Path, told: Any) -> None:
        anchor(path, told)
        for waiting in late:
            durable.append(*waiting)
        late.clear()

    with monkeypatch.context() as patched:
        patched.setattr(store, "append", lambda *line: late.append(line))
        patched.setattr(store, "write_anchor", first)
        images = play(disk, 1)
    monkeypatch.undo()
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    assert found(images, tmp_path / "after")["refused"] > 0
