"""The archive: the same bytes for the same run, no record in it; what a site hands on; the bill of materials."""

from __future__ import annotations

import json
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llmchain_fl.cli.main import app
from llmchain_fl.core.errors import ConfigError, PrivacyError, RunError


def call(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_parts_that_sites_hand_on_make_the_same_archive_byte_for_byte(played: Any, tmp_path: Path) -> None:
    handed = []
    for file in played.site_files:
        handed += ["--site", tmp_path / f"{file.parent.name}.zip"]
        call("audit-log", "export", file, "--out", handed[-1])
    with zipfile.ZipFile(played.archive) as archive:
        (tmp_path / "gate.json").write_bytes(archive.read("run/gate.json"))
    call("evidence", played.run.path, "--out", tmp_path / "again.zip", "--gate", tmp_path / "gate.json", *handed)
    assert (tmp_path / "again.zip").read_bytes() == played.archive.read_bytes()


def test_no_person_no_record_and_no_path_is_in_the_archive(played: Any) -> None:
    with zipfile.ZipFile(played.archive) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    of_sites = b"".join(data for name, data in files.items() if name.startswith("sites/") or "audit" in name)
    for word in (b"Ada-", b"records.jsonl", str(played.run.path.parent).encode(), b"identity.key"):
        assert word not in of_sites
    assert not any(name.endswith((".key", ".bin")) for name in files)


def test_a_site_that_was_changed_hands_nothing_on(played: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = played.site_files[0]
    log = next(file.parent.glob("state/*.audit/audit.jsonl"))
    kept = log.read_bytes()
    log.write_bytes(kept.replace(b'"round":2', b'"round":3', 1))
    try:
        with pytest.raises(PrivacyError, match=r"line \d+ of the audit log .* was changed"):
            call("audit-log", "export", file, "--out", tmp_path / "part.zip")
    finally:
        log.write_bytes(kept)
    assert not (tmp_path / "part.zip").exists()


def test_what_is_no_part_and_a_run_without_a_log_are_refused_with_a_remedy(played: Any, tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"x")
    with pytest.raises(ConfigError, match="is no part of a site"):
        call("evidence", played.run.path, "--out", tmp_path / "e.zip", "--site", tmp_path / "x.zip")
    for name in ("config.toml", "metrics.jsonl"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(RunError, match="has no audit log"):
        call("evidence", tmp_path, "--out", tmp_path / "e.zip")
    with pytest.raises(ConfigError, match="is no site file"):
        call("audit-log", "export", played.run.path, "--out", tmp_path / "e.zip")


def test_a_log_is_shown_verified_and_exported_as_it_is(played: Any) -> None:
    shown = call("audit-log", "show", played.site_files[0], "--last", 3).splitlines()
    assert len(shown) == 3
    assert "answered   evaluate  answered" in shown[-1]
    assert "(delta 1e-05, unit person, accountant pld)" in shown[-1]
    lines = call("audit-log", "export", played.run.path)
    assert lines == (played.run.audit / "audit.jsonl").read_text()
    assert f"{len(lines.splitlines())} lines" in call("audit-log", "verify", played.run.path)
    assert [json.loads(line)["type"] for line in lines.splitlines()][:: 10**6] == ["open"]


def test_the_bill_of_materials_holds_what_cyclonedx_asks_for_and_every_package() -> None:
    bill = json.loads(call("sbom"))
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.5", 1)
    refs = [one["bom-ref"] for one in bill["components"]]
    assert len(set(refs)) == len(refs)
    assert {ref for one in bill["dependencies"] for ref in (one["ref"], *one["dependsOn"])} <= {
        bill["metadata"]["component"]["bom-ref"],
        *refs,
    }
    for one in bill["components"]:
        assert one["type"] == "library"
        assert one["name"]
        assert one["purl"] == one["bom-ref"] == f"pkg:pypi/{one['name']}@{one['version']}"
        assert all(set(licence) <= {"license", "expression"} for licence in one.get("licenses", []))
        assert all(hashed["alg"] == "SHA-256" and len(hashed["content"]) == 64 for hashed in one.get("hashes", []))
    named = {one["name"]: one for one in bill["components"]}
    assert named["numpy"]["version"] == metadata.version("numpy")
    assert named["cryptography"]["licenses"] == [{"expression": "Apache-2.0 OR BSD-3-Clause"}]
    assert call("sbom") == call("sbom")
