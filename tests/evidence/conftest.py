"""The evidence of one tiny private run, and how somebody with the keys would forge it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.config.read import build
from llmchain_fl.core.secure.identity import Identity, canonical, read_identity

VERIFIER = Path(__file__).resolve().parents[2] / "llmchain_fl/evidence/verify.py"
LINKS = ("seq", "prev", "hash")


def load_verifier() -> Any:
    """The verifier as a file of its own, in which nothing of this project can be imported."""
    blocked = dict.fromkeys(("llmchain_fl", "torch", "dp_accounting"))
    kept = {name: sys.modules[name] for name in blocked if name in sys.modules}
    sys.modules.update(blocked)  # type: ignore[arg-type]
    try:
        spec = importlib.util.spec_from_file_location("verifier_alone", VERIFIER)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        for name in blocked:
            del sys.modules[name]
        sys.modules.update(kept)


@pytest.fixture(scope="session")
def verifier() -> Any:
    return load_verifier()


def entries(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


def chained(lines: list[dict[str, Any]]) -> bytes:
    """The lines as somebody writes them who may write the whole log anew."""
    told, prev = b"", "0" * 64
    for number, line in enumerate(lines, 1):
        content = {**{name: value for name, value in line.items() if name not in LINKS}, "seq": number}
        prev_, prev = prev, hashlib.sha256(f"{prev}\n".encode() + canonical(content)).hexdigest()
        told += canonical({**content, "prev": prev_, "hash": prev}) + b"\n"
    return told


@dataclass
class Forger:
    """Files of an archive, and the keys of those who signed them."""

    files: dict[str, bytes]
    keys: dict[str, Identity]
    """Site -> its identity; "": the coordinator's."""
    pinned: dict[str, str] = field(default_factory=dict)

    def copy(self) -> Forger:
        return Forger(dict(self.files), dict(self.keys))

    def json(self, name: str, change: Callable[[Any], Any]) -> None:
        told = json.loads(self.files[name])
        change(told)
        self.files[name] = canonical(told)

    def lines(self, name: str, change: Callable[[list[dict[str, Any]]], Any]) -> None:
        """Change a log, and write it anew; what a site's audit log says of the ledger follows its ledger."""
        before = entries(self.files[name])
        after = entries(self.files[name])
        change(after)
        self.files[name] = chained(after)
        if name.endswith("ledger.jsonl"):
            new = entries(self.files[name])
            moved = {old["hash"]: new[min(at, len(new) - 1)] for at, old in enumerate(before)}

            def follow(log: list[dict[str, Any]]) -> None:
                for line in log:
                    if line["ledger"] is not None:
                        line["ledger"]["seq"] = moved[line["ledger"]["head"]]["seq"]
                        line["ledger"]["head"] = moved[line["ledger"]["head"]]["hash"]

            self.lines(name.replace("ledger", "audit"), follow)

    def sign(self) -> None:
        """Bring every digest and head up to date, and sign with the keys."""
        sites = sorted({name.split("/")[1] for name in self.files if name.startswith("sites/")})
        for site in sites:
            place = f"sites/{site}"
            if f"{place}/statement.json" not in self.files:
                continue
            statement = json.loads(self.files[f"{place}/statement.json"])
            for part in ("audit", "ledger"):
                statement["files"][f"{part}.jsonl"] = sha256(self.files[f"{place}/{part}.jsonl"])
                statement[part] = end_of(self.files[f"{place}/{part}.jsonl"])
            self.signed(f"{place}/statement", "evidence site", statement, self.keys[site])
        manifest = json.loads(self.files["manifest.json"])
        names = set(self.files) - {"manifest.json", "manifest.sig"}
        manifest["files"] = {name: sha256(self.files[name]) for name in names}
        manifest["audit"] = end_of(self.files["run/audit.jsonl"])
        self.signed("manifest", "evidence", manifest, self.keys[""])

    def signed(self, name: str, kind: str, told: Any, key: Identity) -> None:
        data = canonical(told)
        self.files[f"{name}.json"] = data
        self.files[f"{name}.sig"] = key.signed(kind, {"sha256": sha256(data)})


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def end_of(data: bytes) -> dict[str, Any] | None:
    last = entries(data)[-1] if data else None
    return last and {"seq": last["seq"], "head": last["hash"]}


@dataclass(frozen=True)
class Played:
    """A run, its archive, the coordinator's public key."""

    run: Any
    archive: Path
    key: str

    @property
    def site_files(self) -> list[Path]:
        return sorted(self.run.sites.glob("*/site.toml"))


@pytest.fixture(scope="session")
def played(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Played:
    """Three sites, two stages of two rounds, persons, noised scores; then the evidence by the command."""
    from llmchain_fl.config.write import to_toml
    from llmchain_fl.progress import Silent
    from llmchain_fl.run_dir import RunDir
    from simulations.run import simulate

    folder = tmp_path_factory.mktemp("evidence")
    records = [
        {"text": text.split()[number % 3], "label": label, "person": f"Ada-{label}-{number}"}
        for number in range(30)
        for label, text in small.labels.items()
        if len(text.split()) == 3
    ]
    (folder / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in records), encoding="utf-8")
    labels = sorted({row["label"] for row in records})
    config = build(
        {
            "seed": 3,
            "model": {"path": str(small.bert), "threads": 1, "max_tokens": 8},
            "adapter": {"rank": 2},
            "aggregation": {"rule": "ffa"},
            "task": {"labels": labels},
            "data": {"train": str(folder / "records.jsonl"), "test": str(folder / "records.jsonl"), "baseline": 0},
            "sites": {"count": 3, "held_out": 0.3},
            "train": {"steps": 2, "sampling_rate": 0.3, "batch_size": 8, "lr": 0.02},
            "privacy": {"enabled": True, "epsilon": 30.0, "noise_multiplier": 1.0},
            "stage": [{"name": "first", "rounds": 2}, {"name": "second", "rounds": 2}],
        }
    )
    run = RunDir.create(folder / "run", to_toml(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("server.app._write_pages", lambda run: None)
        simulate(config, run, Silent())
    gate = folder / "gate.json"
    gate.write_text(json.dumps({"effort": "fast", "findings": [{"name": "noise", "passed": True}]}))
    return with_evidence(run, folder / "evidence.zip", "--gate", str(gate))


def with_evidence(run: Any, archive: Path, *more: str) -> Played:
    """The run, and its evidence by the command."""
    from typer.testing import CliRunner

    from llmchain_fl.cli.main import app

    words = ["evidence", str(run.path), "--out", str(archive), *more]
    words += [word for file in sorted(run.sites.glob("*/site.toml")) for word in ("--site", str(file))]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return Played(run, archive, result.stdout.split()[0])


@pytest.fixture(scope="session")
def extended(played: Played, tmp_path_factory: pytest.TempPathFactory) -> Played:
    """A copy of that run, extended by a stage of two rounds with other noise; broken off after the first of them, and
    gone on with under other settings."""
    import shutil

    from llmchain_fl.config.read import read_config
    from llmchain_fl.progress import Silent
    from llmchain_fl.run_dir import RunDir
    from simulations.run import extend, simulate

    class Breaks(Silent):
        def round_finished(self, report: Any) -> None:
            raise KeyboardInterrupt

    folder = tmp_path_factory.mktemp("extended")
    run = RunDir(Path(shutil.copytree(played.run.path, folder / "run")))
    tree = read_config(run.config).model_dump()
    tree["stage"] += [{"name": "third", "rounds": 2}]
    tree["privacy"] |= {"noise_multiplier": 1.7, "epsilon": 60.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("server.app._write_pages", lambda run: None)
        longer = extend(build(tree), run)
        with pytest.raises(KeyboardInterrupt):
            simulate(longer, run, Breaks())
        tree["title"] = "gone on with"
        simulate(build(tree), run, Silent())
    return with_evidence(run, folder / "evidence.zip")


@pytest.fixture
def forger(played: Played) -> Forger:
    return forger_of(played)


@pytest.fixture
def forger_of_the_extended(extended: Played) -> Forger:
    return forger_of(extended)


def forger_of(played: Played) -> Forger:
    """Who holds every key of a run."""
    import zipfile

    with zipfile.ZipFile(played.archive) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    keys = {
        site.name: read_identity(site / "state/identity.key") for site in played.run.sites.iterdir() if site.is_dir()
    }
    return Forger(files, {**keys, "": read_identity(played.run.state / "coordinator.key")})
