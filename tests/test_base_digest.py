"""The digest by which a site allows a base model follows from what its folder holds, and from nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmchain_fl.cli.main import app
from llmchain_fl.core.base_digest import base_digest
from llmchain_fl.core.errors import ModelError


def folder_at(path: Path) -> Path:
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(b"\x00" * 64)
    return path


def flip(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x00" * 63 + b"\x01")


def rename(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "other.safetensors")


def add(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("")


def hide(folder: Path) -> None:
    (folder / ".cache").write_text("x")
    (folder / "inner").mkdir()


def touch(folder: Path) -> None:
    os.utime(folder / "config.json", (1, 1))


@pytest.mark.parametrize(
    ("change", "same"), [(flip, False), (rename, False), (add, False), (hide, True), (touch, True)]
)
def test_a_byte_a_name_or_a_file_more_is_another_base(
    tmp_path: Path, change: Callable[[Path], None], same: bool
) -> None:
    folder = folder_at(tmp_path / "base")
    before = base_digest(folder)
    assert before.startswith("sha256:")
    assert len(before) == 71
    assert base_digest(folder_at(tmp_path / "copy")) == before
    change(folder)
    assert (base_digest(folder) == before) == same


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_what_is_no_model_has_no_digest(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError):
        base_digest(tmp_path / name)


def test_the_command_prints_what_a_site_file_takes(tmp_path: Path) -> None:
    folder = folder_at(tmp_path / "base")
    printed = CliRunner().invoke(app, ["digest", str(folder)])
    assert printed.exit_code == 0
    assert printed.output.strip() == base_digest(folder)
