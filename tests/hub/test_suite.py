"""``llmchain-fl evaluate RUN --suite`` over a run: its file, its report, its card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llmchain_fl.cli.main import app
from llmchain_fl.hub import Trust, verified
from llmchain_fl.hub.evidence import Statement
from llmchain_fl.hub.publish import Offer, write_folder
from llmchain_fl.hub.recompute import recomputed
from llmchain_fl.report.page import write_report
from llmchain_fl.run_dir import RunDir


def test_the_suite_of_a_run_stands_in_its_folder_its_report_and_its_card(
    run: Any, signer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "run"
    shutil.copytree(run.path, place)
    monkeypatch.setattr("llmchain_fl.suite.run.EXPLAINED", 2)
    done = CliRunner().invoke(app, ["evaluate", str(place), "--suite", "--size", "20"])
    assert done.exit_code == 0, done.output
    suite = json.loads((place / "suite.json").read_text())
    assert set(suite["parts"]) | set(suite["left_out"]) == {
        "sureness", "shift", "perturbation", "bias", "attribution", "membership",
    }  # fmt: skip
    assert set(suite["parts"]["shift"]) == {"first", "second"}
    assert suite["records"] == 20
    assert "calibration error" in write_report(RunDir.open(place)).read_text()
    statement = Statement(data="made-up", intended_use="tests", refused_use="anything else", licence="Apache-2.0")
    offer = Offer(RunDir.open(place), "bank", statement, base_name="tiny-bert")
    write_folder(tmp_path / "folder", offer, signer.own, 1, "")
    adapter = verified(tmp_path / "folder", Trust({"self": signer.own.public}))
    card = adapter.card["suite"]
    assert card["sureness.ece"] == {
        "value": suite["parts"]["sureness"]["ece"],
        "source": "evidence/suite.json",
        "at": "parts.sureness.ece",
    }
    assert "Beyond the score" in (tmp_path / "folder" / "README.md").read_text()
    assert all(check.holds is not False for check in recomputed(adapter))
    (place / "suite.json").write_text(json.dumps({**suite, "content": "another"}))
    write_folder(tmp_path / "other", offer, signer.own, 2, "")
    assert not (tmp_path / "other" / "evidence" / "suite.json").exists(), "of another adapter"
