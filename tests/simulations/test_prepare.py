"""Dealing out: one folder a site, the same on every call, and own files where each site has one."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from client.site import SiteLimits, read_site
from llmchain_fl.config.read import build
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.errors import DataError, LlmchainError
from llmchain_fl.planning.work import work_from
from simulations.dealing import site_names
from simulations.prepare import prepare_sites, simulated_site, site_file


def write(path: Path, count: int, word: str = "card") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"text": f"{word} {number}", "label": "ab"[number % 2]} for number in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def config(source: str, count: int, held_out: float = 0.0, **sections: dict[str, Any]) -> RunConfig:
    """``sections`` are laid over two labels, ``count`` sites and no privacy."""
    tree: dict[str, Any] = {
        "task": {"labels": ["a", "b"]},
        "data": {"train": source},
        "sites": {"count": count, "held_out": held_out},
    }
    for name, section in sections.items():
        tree[name] = {**tree.get(name, {}), **section} if isinstance(section, dict) else section
    return build(tree)


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


# -- persons ----------------------------------------------------------------------------------------------------------

PRIVATE = {"enabled": True, "epsilon": 3.0, "delta": 1e-6}


def with_persons(path: Path, persons: int, each: int = 3) -> Path:
    """``each`` records of every person, every third in stage x and the others in stage y."""
    rows = [
        {"text": f"card {i}", "label": "ab"[i % 2], "person": f"p{i % persons}", "stage": "xy"[i // persons % 3 > 0]}
        for i in range(persons * each)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def records(folder: Path, pattern: str) -> list[dict[str, str]]:
    return [json.loads(line) for file in sorted(folder.glob(pattern)) for line in file.read_text().splitlines()]


def test_made_up_persons_have_between_one_and_n_records_and_no_record_is_lost(tmp_path: Path) -> None:
    wanted = config(str(write(tmp_path / "all.jsonl", 600)), 2, data={"made_up_persons": 4})
    prepare_sites(wanted, tmp_path / "sites")
    sizes: list[int] = []
    for name in ("site-00", "site-01"):
        found = records(tmp_path / "sites" / name, "all.jsonl")
        sizes += Counter(row["person"] for row in found).values()
        assert len(found) == 300
    assert set(sizes) == {1, 2, 3, 4}
    assert all(sizes.count(size) > len(sizes) / 8 for size in (1, 2, 3, 4))
    everything = [row["text"] for row in records(tmp_path / "sites", "*/all.jsonl")]
    assert sorted(everything) == sorted(texts(tmp_path / "all.jsonl"))


def test_made_up_persons_are_not_runs_of_neighbouring_records(tmp_path: Path) -> None:
    """A file is often sorted by label: a person would otherwise have one label only."""
    source = tmp_path / "all.jsonl"
    source.write_text(
        "".join(json.dumps({"text": str(i), "label": "a" if i < 300 else "b"}) + "\n" for i in range(600))
    )
    prepare_sites(config(str(source), 1, data={"made_up_persons": 4}), tmp_path / "sites")
    labels: dict[str, set[str]] = {}
    for row in records(tmp_path / "sites", "*/all.jsonl"):
        labels.setdefault(row["person"], set()).add(row["label"])
    assert sum(len(found) == 2 for found in labels.values()) > len(labels) / 3


def test_made_up_persons_of_two_stages_are_different_ones_and_the_same_in_every_run(tmp_path: Path) -> None:
    source = with_persons(tmp_path / "all.jsonl", 40)
    stages = [{"name": name, "where": {"stage": name}} for name in "xy"]
    wanted = config(str(source), 2, data={"made_up_persons": 3}, stage=stages)
    for name in ("first", "again"):
        prepare_sites(wanted, tmp_path / name)
    found = [{row["person"] for row in records(tmp_path / "first", f"*/{name}.jsonl")} for name in "xy"]
    assert not found[0] & found[1]
    assert records(tmp_path / "first", "*/*.jsonl") == records(tmp_path / "again", "*/*.jsonl")


def test_without_made_up_persons_the_files_own_persons_stay(tmp_path: Path) -> None:
    prepare_sites(config(str(with_persons(tmp_path / "all.jsonl", 10)), 2, privacy=PRIVATE), tmp_path / "sites")
    assert {row["person"] for row in records(tmp_path / "sites", "*/all.jsonl")} == {f"p{i}" for i in range(10)}


@pytest.mark.parametrize("made_up", [0, 3])
def test_a_held_out_person_is_held_out_with_all_records_in_every_stage_and_at_every_site(
    tmp_path: Path, made_up: int
) -> None:
    source = with_persons(tmp_path / "all.jsonl", 60, each=8)
    stages = [{"name": name, "where": {"stage": name}} for name in "xy"]
    wanted = config(str(source), 3, 0.4, data={"made_up_persons": made_up}, privacy=PRIVATE, stage=stages)
    prepare_sites(wanted, tmp_path / "sites")
    kept, trained = (
        {row["person"] for name in "xy" for row in records(tmp_path / "sites", f"*/{name}{suffix}.jsonl")}
        for suffix in (".held_out", "")
    )
    assert not kept & trained
    assert 0.2 < len(kept) / len(kept | trained) < 0.6
    both = records(tmp_path / "sites", "*/[xy].jsonl") + records(tmp_path / "sites", "*/*.held_out.jsonl")
    assert sorted(row["text"] for row in both) == sorted(texts(source))


def test_another_seed_holds_out_other_persons(tmp_path: Path) -> None:
    source, found = with_persons(tmp_path / "all.jsonl", 60), []
    for seed in (1, 2):
        wanted = config(str(source), 1, 0.4, privacy=PRIVATE, seed=seed)  # type: ignore[arg-type]
        prepare_sites(wanted, tmp_path / str(seed))
        found.append({row["person"] for row in records(tmp_path / str(seed), "*/*.held_out.jsonl")})
    assert found[0] != found[1]


@pytest.mark.parametrize(
    "sections",
    [{"privacy": {**PRIVATE, "unit": "record"}}, {"privacy": PRIVATE, "data": {"one_record_per_person": True}}, {}],
)
def test_where_records_stand_for_themselves_the_exact_share_is_held_out(
    tmp_path: Path, sections: dict[str, dict[str, Any]]
) -> None:
    prepare_sites(config(str(write(tmp_path / "all.jsonl", 50)), 1, 0.3, **sections), tmp_path / "sites")
    assert len(records(tmp_path / "sites", "*/all.held_out.jsonl")) == 15


# -- the policy of a simulated site ------------------------------------------------------------------------------------

NO_LIMIT = 1e6
POLICIES: dict[str, tuple[float, dict[str, Any], SiteLimits]] = {
    "no privacy": (0.0, {}, SiteLimits(require_privacy=False, epsilon=NO_LIMIT, scores="none")),
    "no privacy, own scores": (0.2, {}, SiteLimits(require_privacy=False, epsilon=NO_LIMIT, scores="exact")),
    "persons": (0.0, PRIVATE, SiteLimits(epsilon=3.0, delta=1e-6, units=["person"], scores="none")),
    "persons, own scores": (0.2, PRIVATE, SiteLimits(epsilon=3.0, delta=1e-6, units=["person"], scores="noised")),
    "records": (0.2, {**PRIVATE, "unit": "record"}, SiteLimits(epsilon=3.0, delta=1e-6, units=["record"])),
    "sites": (0.2, {**PRIVATE, "unit": "site"}, SiteLimits(epsilon=3.0, delta=1e-6, units=["site"])),
    "no budget": (
        0.0,
        {"enabled": True, "noise_multiplier": 2.0},
        SiteLimits(epsilon=NO_LIMIT, units=["person"], scores="none"),
    ),
}


@pytest.mark.parametrize("name", POLICIES)
def test_a_site_allows_what_the_run_asks_and_no_more(name: str, tmp_path: Path) -> None:
    held_out, privacy, limits = POLICIES[name]
    source = with_persons(tmp_path / "all.jsonl", 20)
    (site,) = prepare_sites(config(str(source), 1, held_out, privacy=privacy), tmp_path / "sites")
    caps = {name for name in SiteLimits.model_fields if name.startswith("max_")} | {"hub"}
    assert site.limits.model_dump(exclude=caps) == limits.model_dump(exclude=caps)
    assert read_site(tmp_path / "sites" / "site-00" / "site.toml") == site
    assert not site.data.one_record_per_person


LARGEST: dict[str, Any] = {
    "adapter": {"rank": 1024},
    "model": {"max_tokens": 32768, "threads": 3},
    "train": {"steps": 1_000_000, "micro_batch": 4096},
    "continual": {
        "guards": ["agem", "distill", "replay"],
        "public": "generated:bank-messages",
        "agem": {"batch": 10_000},
        "distill": {"batch": 10_000, "data": "public"},
        "replay": {"batch": 10_000},
    },
}


def test_the_caps_of_a_simulated_site_let_the_largest_configuration_pass(tmp_path: Path) -> None:
    wanted = config(str(write(tmp_path / "all.jsonl", 12)), 1, **LARGEST)
    (site,) = prepare_sites(wanted, tmp_path / "sites")
    work = work_from(wanted, {"a": "a", "b": "b"}, ("lora_B",), None)
    site.check(work)
    assert read_site(tmp_path / "sites" / "site-00" / "site.toml") == site
    assert (site.compute.threads, site.compute.micro_batch, site.compute.rows) == (3, 4096, 0)
    usual = site.model_copy(update={"limits": SiteLimits(require_privacy=False)})
    with pytest.raises(LlmchainError):
        usual.check(work)
    for cap in ("max_steps", "max_rank", "max_tokens", "max_public"):  # each of them would have been in the way
        own = SiteLimits(**{**site.limits.model_dump(), cap: getattr(SiteLimits(), cap)})
        with pytest.raises(LlmchainError):
            site.model_copy(update={"limits": own}).check(work)


def test_what_the_run_declares_about_persons_stands_in_the_site_file(tmp_path: Path) -> None:
    source = write(tmp_path / "all.jsonl", 12)
    wanted = config(str(source), 1, privacy=PRIVATE, data={"one_record_per_person": True})
    (site,) = prepare_sites(wanted, tmp_path / "sites")
    assert site.data.one_record_per_person
    assert read_site(tmp_path / "sites" / "site-00" / "site.toml") == site


# -- what an extension adds -------------------------------------------------------------------------------------------


def by_branch(path: Path, branches: dict[str, int], stage: str) -> list[dict[str, str]]:
    rows = [
        {"text": f"{stage} {branch} {number}", "label": "ab"[number % 2], "branch": branch, "stage": stage}
        for branch, count in branches.items()
        for number in range(count)
    ]
    old = path.read_text() if path.exists() else ""
    path.write_text(old + "".join(json.dumps(row) + "\n" for row in rows))
    return rows


def test_a_stage_that_comes_later_goes_to_the_sites_where_its_groups_are_and_new_groups_to_who_is_new(
    tmp_path: Path,
) -> None:
    source, sites = tmp_path / "all.jsonl", tmp_path / "sites"
    column = {"partition": "column", "column": "branch"}
    first = {"name": "first", "where": {"stage": "first"}}
    second = {"name": "second", "where": {"stage": "second"}}
    by_branch(source, {"east": 9, "north": 7, "south": 5}, "first")
    prepare_sites(config(str(source), 2, sites=column, stage=[first]), sites)
    branches = {
        name: {text.split()[1] for text in texts(sites / name / "first.jsonl")} for name in ("site-00", "site-01")
    }
    kept = (sites / "site-00" / "first.jsonl").read_bytes()
    by_branch(source, {"south": 40, "north": 4, "east": 3, "west": 6}, "second")
    arrival = {"arrival": {"site-02": {"joins": 6}}}
    prepare_sites(config(str(source), 3, sites=column, stage=[first, second], stream=arrival), sites)
    assert (sites / "site-00" / "first.jsonl").read_bytes() == kept
    assert not (sites / "site-02" / "first.jsonl").exists()
    for name, held in branches.items():
        assert {text.split()[1] for text in texts(sites / name / "second.jsonl")} == held
    assert {text.split()[1] for text in texts(sites / "site-02" / "second.jsonl")} == {"west"}


def test_names_of_sites_that_are_there_do_not_change(tmp_path: Path) -> None:
    source = str(write(tmp_path / "all.jsonl", 300))
    prepare_sites(config(source, 100), tmp_path / "sites")
    with pytest.raises(DataError, match="there would be no site-00, site-01"):
        prepare_sites(config(source, 101), tmp_path / "sites")


@pytest.mark.parametrize("summed", [False, True])
def test_a_site_made_out_of_the_pattern_of_all_is_the_site_made_by_itself(tmp_path: Path, summed: bool) -> None:
    more = {"secure": {"sum": True}, "train": {"method": "lockstep"}} if summed else {}
    wanted = config(str(write(tmp_path / "all.jsonl", 20)), 3, **more)
    sites = prepare_sites(wanted, tmp_path / "sites")
    for name in sites.names:
        alone = simulated_site(wanted, tmp_path / "sites", name)
        assert sites.of(name) == alone.written_as(site_file(wanted, tmp_path / "sites", name))
        assert sites.of(name).policy == read_site(tmp_path / "sites" / name / "site.toml").policy
