"""Dealing out: one folder a site, the same on every call, and own files where each site has one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from client.site import read_site
from llmchain_fl.config.read import build
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.errors import DataError
from simulations.prepare import prepare_sites, site_names


def write(path: Path, count: int, word: str = "card") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"text": f"{word} {number}", "label": "ab"[number % 2]} for number in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def config(train: str, count: int, held_out: float = 0.0) -> RunConfig:
    sites = {"count": count, "held_out": held_out}
    return build({"task": {"labels": ["a", "b"]}, "data": {"train": train}, "sites": sites})


def texts(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text().splitlines()]


def test_every_record_goes_to_one_site_and_to_training_or_to_its_own_score(tmp_path: Path) -> None:
    source = write(tmp_path / "all.jsonl", 40)
    found = prepare_sites(config(str(source), 4, held_out=0.2), tmp_path / "sites")
    assert [site.name for site in found] == ["site-00", "site-01", "site-02", "site-03"]
    folders = [tmp_path / "sites" / site.name for site in found]
    held_out = [texts(folder / "all.held_out.jsonl") for folder in folders]
    training = [texts(folder / "all.jsonl") for folder in folders]
    assert [len(part) for part in held_out] == [2, 2, 2, 2]
    assert sorted(text for part in held_out + training for text in part) == sorted(texts(source))


def test_sites_are_dealt_once_and_found_again(tmp_path: Path) -> None:
    wanted = config(str(write(tmp_path / "all.jsonl", 12)), 2)
    first = prepare_sites(wanted, tmp_path / "sites")
    (tmp_path / "all.jsonl").unlink()
    assert prepare_sites(wanted, tmp_path / "sites") == first


def test_the_site_file_says_what_the_site_in_memory_is(tmp_path: Path) -> None:
    for site in prepare_sites(config(str(write(tmp_path / "all.jsonl", 12)), 2, held_out=0.2), tmp_path / "sites"):
        assert read_site(tmp_path / "sites" / site.name / "site.toml") == site


@pytest.mark.parametrize("pattern", ["{site}.jsonl", "{site}/own.jsonl", "{site}/{split}.jsonl"])
@pytest.mark.parametrize("absolute", [True, False])
def test_own_files_name_their_sites_wherever_they_lie(
    pattern: str, absolute: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = f"{tmp_path}/data[1]" if absolute else "data[1]"
    train = f"{base}/{pattern}"
    for name in ("north", "south"):
        write(Path(train.replace("{site}", name).replace("{split}", "train")), 6, word=name)
    found = prepare_sites(config(train, 2), tmp_path / "sites")
    assert [site.name for site in found] == ["north", "south"]
    assert all(text.startswith("north") for text in texts(tmp_path / "sites" / "north" / "all.jsonl"))


@pytest.mark.parametrize("there", [0, 3])
def test_another_number_of_own_files_than_sites_is_an_error_that_names_both(there: int, tmp_path: Path) -> None:
    for number in range(there):
        write(tmp_path / f"s{number}.jsonl", 4)
    with pytest.raises(DataError, match=rf"{there} files match .*sites.count = 2"):
        site_names(config(f"{tmp_path}/{{site}}.jsonl", 2))
