"""Unlearning and going back, on a run's directory with three stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModel

from llmchain_fl.adapter.files import Lineage, read_adapter, write_adapter
from llmchain_fl.adapter.slots_file import read_slots, split, write_slots
from llmchain_fl.aggregation.factors import serving
from llmchain_fl.continual.unlearn import adapter_folder, lineage, remove_site, remove_stage, restore
from llmchain_fl.core.adapter.digest import digest
from llmchain_fl.core.errors import ModelError, RunError
from llmchain_fl.core.work import GuardSpec
from llmchain_fl.guards.protocol import View
from llmchain_fl.guards.server_guards import ServerGuards
from llmchain_fl.run_dir import RunDir

STAGES = ("cards", "fraud", "loans")
SLOTS, ROUTE = GuardSpec("slots", (("share", 0.5),)), GuardSpec("route", (("tau", 0.05),))


def public(small: Any) -> list[dict[str, str]]:
    """Two records of at most three words a stage."""
    rows = [{**row, "stage": name} for i, name in enumerate(STAGES) for row in small.rows(2, seed=20 + i)]
    return [{**row, "text": " ".join(row["text"].split()[:3])} for row in rows]


def made(small: Any, path: Path, specs: list[GuardSpec], **settings: Any) -> RunDir:
    """A run of three stages, of two rounds each, in which every B is drawn instead of learnt."""
    run = RunDir.create(path, "")
    task, work, rows = small.task(**settings), small.work(**settings), public(small)
    guards, current, draw, parent = ServerGuards(specs), task.resident.fresh(), np.random.default_rng(1), ""
    for stage, name in enumerate(STAGES):
        told = {"round": 2 * stage + 2, "stage": stage, "stages": STAGES, "last": True, "scale": 2.0, "seed": 7}
        view = View(**told, before={}, probe=lambda _: {}, task=task, public=task.encode(rows), public_rows=tuple(rows))
        moved = {
            n: draw.normal(scale=0.3, size=v.shape).astype(np.float32) for n, v in current.items() if "lora_B" in n
        }
        current = guards.step(view, {**current, **moved})
        full = guards.serve(view, current)
        plain, slots = split(full, STAGES)
        for folder in (run.stage_adapter(stage, name), run.adapter):
            written = write_adapter(
                folder, task.resident, serving(plain, 2.0), work, Lineage("r", 2 * stage + 2, name, parent)
            )
            write_slots(folder, slots, written)
        parent, current = written, guards.on_stage_end(view, current, full)
    sites = [(1, "north"), (1, "south"), (2, "south"), (3, "west"), (5, "north")]
    base = {"stage": 0, "scope": "site", "task": "all", "value": 1.0, "n": None}
    run.append_rows({**base, "round": number, "site": site, "metric": "bytes_up"} for number, site in sites)
    run.append_rows([{**base, "round": 1, "site": "late", "metric": "refused"}])
    return run


@pytest.fixture(scope="module")
def run(small: Any, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return made(small, tmp_path_factory.mktemp("slots") / "run", [SLOTS, ROUTE])


@pytest.fixture(scope="module")
def plain(small: Any, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return made(small, tmp_path_factory.mktemp("plain") / "run", [])


def manifest(folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return told


def logits(small: Any, folder: Path, rows: list[dict[str, str]], *, routed: bool) -> torch.Tensor:
    from llmchain_fl.core.work import open_work

    work, arrays = read_adapter(folder)
    resident, task = open_work(work.resident, work.task)
    slots = read_slots(folder, arrays)
    resident.reset()
    resident.load({**arrays, **(slots.arrays() if slots and routed else {})})
    examples = task.encode(rows)
    with torch.no_grad():
        return task.forward(examples, range(len(rows))).logits


# -- a stage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_what_is_left_is_the_adapter_of_the_other_slots_bit_for_bit(run: RunDir, tmp_path: Path, stage: str) -> None:
    """The other slots: as they stood in the adapters that were written when only they, or they last, were there."""
    assert remove_stage(run.path, stage, tmp_path / "out") == tuple(name for name in STAGES if name != stage)
    work, left = read_adapter(tmp_path / "out")
    latest = read_adapter(run.adapter)[1]
    blocks = {"loans": slice(0, 3), "cards": slice(3, 6), "fraud": slice(6, 9)}  # the pair first, then the fold
    rest = [blocks[name] for name in ("loans", "cards", "fraud") if name != stage]
    for name, value in latest.items():
        parts = [value[block] if name.endswith("lora_A") else value[:, block] for block in rest]
        assert np.array_equal(left[name], np.concatenate(parts, axis=0 if name.endswith("lora_A") else 1))
    first = read_adapter(run.stage_adapter(0, "cards"))[1]  # and the blocks are the slots: here the first one's
    name = next(name for name in latest if name.endswith("lora_A"))
    assert np.array_equal(latest[name][blocks["cards"]], first[name])
    assert (work.adapter.rank, work.adapter.scale) == (6, 2.0)


def test_without_its_last_stage_an_adapter_says_what_it_said_before(small: Any, run: RunDir, tmp_path: Path) -> None:
    remove_stage(run.path, "loans", tmp_path / "out")
    before = logits(small, run.stage_adapter(1, "fraud"), small.rows(6), routed=False)
    assert torch.allclose(logits(small, tmp_path / "out", small.rows(6), routed=False), before, atol=1e-4)


def test_texts_whose_inputs_the_slot_kept_out_of_do_not_notice(small: Any, run: RunDir, tmp_path: Path) -> None:
    remove_stage(run.path, "fraud", tmp_path / "out")
    mine, others = public(small)[:2], small.rows(6)
    for rows, same in ((mine, True), (others, False)):
        before, after = (logits(small, folder, rows, routed=False) for folder in (run.adapter, tmp_path / "out"))
        assert ((after - before).abs().max() < 1e-3) == same


def test_a_text_that_chose_the_slot_chooses_among_the_others(small: Any, run: RunDir, tmp_path: Path) -> None:
    remove_stage(run.path, "fraud", tmp_path / "one")
    remove_stage(tmp_path / "one", "loans", tmp_path / "two")
    slots = read_slots(tmp_path / "two", read_adapter(tmp_path / "two")[1])
    assert slots is not None
    assert (slots.held, len(slots.route["route.keys"])) == (("cards",), 1)
    rows = small.rows(6)
    expected = logits(small, run.stage_adapter(0, "cards"), rows, routed=False)
    assert torch.allclose(logits(small, tmp_path / "two", rows, routed=True), expected, atol=1e-5)


def test_the_manifest_says_what_was_taken_out_and_of_what(run: RunDir, tmp_path: Path) -> None:
    remove_stage(run.path, "cards", tmp_path / "out")
    told, old = manifest(tmp_path / "out"), manifest(run.adapter)
    assert told["content"] == digest(read_adapter(tmp_path / "out")[1]) != old["content"]
    assert told["parent"] == old["content"]
    assert told["removed"] == {"stage": "cards", "kept": ["fraud", "loans"]}
    assert {key: told[key] for key in ("run", "round", "stage", "base")} == {
        key: old[key] for key in ("run", "round", "stage", "base")
    }


def test_peft_reads_what_is_left(small: Any, run: RunDir, tmp_path: Path) -> None:
    remove_stage(run.path, "cards", tmp_path / "out")
    ids = torch.tensor([[3, 7, 9, 12]])
    theirs = peft.PeftModel.from_pretrained(AutoModel.from_pretrained(small.bert), str(tmp_path / "out"))
    with torch.no_grad():
        hidden = theirs(input_ids=ids)[0]
        work, arrays = read_adapter(tmp_path / "out")
        from llmchain_fl.core.work import open_work

        resident, _ = open_work(work.resident, work.task)
        resident.reset()
        resident.load(arrays)
        ours = resident.forward(ids, torch.ones_like(ids), {}, [0])[0]
    assert torch.allclose(ours, hidden, atol=1e-5)


def test_nothing_that_was_there_is_changed(run: RunDir, tmp_path: Path) -> None:
    def files() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in sorted(run.path.rglob("*")) if p.is_file()}

    before = files()
    remove_stage(run.path, "cards", tmp_path / "a")
    restore(run, tmp_path / "b", stage="cards")
    with pytest.raises(RunError, match="is there already"):
        remove_stage(run.path, "cards", tmp_path / "a")
    with pytest.raises(RunError, match="is there already"):
        restore(run, tmp_path / "b", stage="fraud")
    assert files() == before


def test_a_stage_that_cannot_be_cut_out_is_refused_with_the_way_that_is_left(
    small: Any, run: RunDir, plain: RunDir, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    headed = made(small, tmp_path / "headed", [SLOTS], head="trained")
    for path, stage, words in (
        (plain.path, "loans", ("one pair holds", "restore", "--stage fraud")),
        (plain.path, "cards", ("one pair holds", "train anew")),
        (plain.path, "carts", ("one pair holds", "did you mean cards?")),
        (plain.adapter, "loans", ("one pair holds", "give the run's directory")),
        (headed.path, "fraud", ("trained head", "--stage cards")),
        (run.path, "frauds", ("no slot", "did you mean fraud?", "cards, fraud, loans")),
        (run.stage_adapter(0, "cards"), "cards", ("the only slot", "base model")),
    ):
        with pytest.raises(RunError) as error:
            remove_stage(path, stage, out)
        assert all(word in str(error.value) for word in words), str(error.value)
    assert not out.exists()


# -- an older adapter -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "stage"), [({"stage": "fraud"}, 1), ({"round": 5}, 1), ({"round": 4}, 1), ({"round": 99}, 2)]
)
def test_a_restored_adapter_is_the_one_of_the_stage(
    small: Any, run: RunDir, tmp_path: Path, told: dict[str, Any], stage: int
) -> None:
    kept = restore(run, tmp_path / "out", **told)
    source = run.stage_adapter(stage, STAGES[stage])
    assert (kept.stage, kept.round, kept.folder) == (STAGES[stage], 2 * stage + 2, source)
    assert digest(read_adapter(tmp_path / "out")[1]) == manifest(source)["content"] == kept.content
    origin = {"from": f"stages/{stage:02d}-{STAGES[stage]}/adapter", "instead_of": manifest(run.adapter)["content"]}
    assert manifest(tmp_path / "out") == {**manifest(source), "restored": origin}
    rows = small.rows(4)
    assert torch.equal(logits(small, tmp_path / "out", rows, routed=True), logits(small, source, rows, routed=True))


def test_the_lineage_is_a_chain_from_the_oldest_on(run: RunDir) -> None:
    kept = lineage(run)
    assert [(k.stage, k.round) for k in kept] == [("cards", 2), ("fraud", 4), ("loans", 6)]
    assert [manifest(k.folder)["parent"] for k in kept] == ["", kept[0].content, kept[1].content]


def test_what_was_not_kept_or_is_damaged_cannot_be_brought_back(small: Any, tmp_path: Path) -> None:
    run, out = made(small, tmp_path / "run", []), tmp_path / "out"
    for told, words in (
        ({"stage": "fruad"}, ("did you mean fraud?", "cards, fraud, loans")),
        ({"round": 1}, ("up to round 1", "2, 4, 6")),
    ):
        with pytest.raises(RunError) as error:
            restore(run, out, **told)
        assert all(word in str(error.value) for word in words)
    file = run.stage_adapter(1, "fraud") / "adapter_model.safetensors"
    file.write_bytes((run.stage_adapter(0, "cards") / file.name).read_bytes())
    with pytest.raises(ModelError, match="not the one its manifest names"):
        restore(run, out, stage="fraud")
    (run.stage_adapter(2, "loans") / "manifest.json").write_text("{}")
    with pytest.raises(RunError, match=r"manifest\.json is missing or damaged"):
        restore(run, out, stage="cards")
    assert not out.exists()


def test_an_adapter_is_found_as_the_other_commands_find_it(small: Any, run: RunDir, tmp_path: Path) -> None:
    import shutil

    assert adapter_folder(run.path) == run.adapter
    assert adapter_folder(run.stage_adapter(0, "cards")) == run.stage_adapter(0, "cards")
    copy = RunDir(tmp_path / "copy")
    shutil.copytree(run.path, copy.path)
    shutil.rmtree(copy.adapter)
    assert adapter_folder(copy.path) == copy.stage_adapter(2, "loans")
    shutil.rmtree(copy.path / "stages")
    with pytest.raises(RunError, match="no adapter yet"):
        adapter_folder(copy.path)


# -- a site -----------------------------------------------------------------------------------------------------------


def test_a_site_that_came_later_is_out_of_the_adapter_from_before_it(run: RunDir, tmp_path: Path) -> None:
    kept, first = remove_site(run, "west", tmp_path / "out")
    assert (kept.stage, kept.round, first) == ("cards", 2, 3)
    told = manifest(tmp_path / "out")
    assert told["content"] == manifest(run.stage_adapter(0, "cards"))["content"]
    assert told["removed"] == {"site": "west", "first_round": 3}


def test_a_site_that_is_in_every_adapter_is_refused_with_what_bounds_it(run: RunDir, tmp_path: Path) -> None:
    def refusal(site: str) -> str:
        with pytest.raises(RunError) as error:
            remove_site(run, site, tmp_path / "out")
        return str(error.value)

    for site in ("north", "south"):
        said = refusal(site)
        for words in ("in every adapter", "round 1", "summed and not kept", f'sites.excluded = ["{site}"]'):
            assert words in said
        assert "nothing bounds" in said
    told = {"private": True, "delta": 1e-5, "unit": "person", "accountant": "pld", "sites": {"south": {"epsilon": 2.5}}}
    run.write_privacy(told)
    bound = "epsilon 2.50 (delta 1e-5, per person, PLD accountant, noise added at each site)"
    assert f"one person of it is bounded: {bound}" in refusal("south")
    assert "did you mean north?" in refusal("nroth")
    assert "north, south, west" in refusal("late")  # it was refused, so it gave nothing
    assert not (tmp_path / "out").exists()
