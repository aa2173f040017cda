"""Taking a stage out of an adapter, going back to an older one, and what can be done for a site that wants out.

Every way ends in a new adapter folder; nothing that is there is changed. What each of them promises, and what it does
not, stands in plain words in ``docs/unlearning.md``.

=============================  ===================================================================================
wanted                         what is done
=============================  ===================================================================================
a stage out, with slots        its slot is cut out; the other slots are untouched, bit for bit
a stage out, without slots     refused: one pair holds what all stages taught; the adapter before it is named
a stage out, trained head      refused likewise: the head holds what all stages taught
the only slot out              refused: nothing would be left
an older adapter back          the folder of that stage is copied; its content hash is checked
a site out                     the last adapter from before its first update; refused where there is none
=============================  ===================================================================================
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.numpy import save

from llmchain_fl.adapter.files import read_adapter, write_card
from llmchain_fl.adapter.peft_files import read_tensors
from llmchain_fl.adapter.slots_file import Slots, read_slots, without_stage, write_slots
from llmchain_fl.atomic_file import atomic_write, write_json
from llmchain_fl.core.adapter.digest import digest
from llmchain_fl.core.errors import RunError
from llmchain_fl.core.words import nearest
from llmchain_fl.guards import GUARDS
from llmchain_fl.metrics_file import ALL_SITES
from llmchain_fl.report.wording import epsilon_text, guarantee
from llmchain_fl.run_dir import RunDir

_MODEL, _MANIFEST = "adapter_model.safetensors", "manifest.json"


@dataclass(frozen=True)
class Kept:
    """An adapter of a run's lineage."""

    folder: Path
    stage: str
    round: int
    content: str


def lineage(run: RunDir) -> list[Kept]:
    """The adapters at the ends of stages, the oldest first.

    Raises:
        RunError: a manifest is damaged.
    """
    adapters = []
    for file in run.path.glob(f"stages/*/adapter/{_MANIFEST}"):
        manifest = _manifest(file.parent)
        adapters.append(Kept(file.parent, str(manifest["stage"]), int(manifest["round"]), str(manifest["content"])))
    return sorted(adapters, key=lambda adapter: adapter.round)


def adapter_folder(path: Path) -> Path:
    """The adapter meant by ``path``: a folder with one, or a run's latest.

    Raises:
        RunError: there is none.
    """
    if (path / "work.json").is_file():
        return path
    run = RunDir.open(path)
    older = lineage(run)
    if not run.adapter.is_dir() and not older:
        raise RunError(f"{path} has no adapter yet", remedy=f"finish it: llmchain-fl simulate --resume {path}")
    return run.adapter if run.adapter.is_dir() else older[-1].folder


def remove_stage(path: Path, stage: str, out: Path) -> tuple[str, ...]:
    """Write the adapter of ``path`` without the slot of ``stage`` to ``out``; returns the stages that are left.

    Args:
        path: a run's directory, or an adapter folder.
        stage: its name.
        out: a folder that is not there yet.

    Raises:
        RunError: see the table of this file; the way that is left is named.
        ModelError: the folder is damaged.
    """
    folder = adapter_folder(path)
    work, arrays = read_adapter(folder)
    slots = _removable(path, folder, stage, read_slots(folder, arrays))
    left, rest = without_stage(arrays, slots, stage)
    raw, _ = without_stage(read_tensors(folder / _MODEL), slots, stage)
    rank, scale = len(rest.rows), work.adapter.scale
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    _copied(folder, out)
    atomic_write(out / _MODEL, save(raw, metadata={"format": "pt"}))
    write_json(out / "adapter_config.json", {**config, "r": rank, "lora_alpha": scale * rank})
    work = replace(work, adapter=replace(work.adapter, rank=rank, alpha=scale * rank))
    atomic_write(out / "work.json", work.to_json().encode())
    old, content = _manifest(folder), digest(left)
    write_slots(out, rest, content)
    removed = {"stage": stage, "kept": list(rest.held)}
    manifest = {**old, "content": content, "parent": old["content"], "removed": removed}
    write_card(out, work, left, rest, manifest)
    write_json(out / _MANIFEST, manifest)
    return rest.held


def restore(run: RunDir, out: Path, *, stage: str = "", round: int = 0) -> Kept:
    """Write an older adapter of the run to ``out``: of the end of ``stage``, or the last one up to ``round``.

    Raises:
        RunError: there is no such adapter, or ``out`` is there already.
        ModelError: the adapter is not the one its manifest names.
    """
    adapter = _find(run, stage, round)
    read_adapter(adapter.folder)  # checks the content hash
    _write_back(run, adapter, out, {})
    return adapter


def remove_site(run: RunDir, site: str, out: Path) -> tuple[Kept, int]:
    """Go back to the last adapter from before the site's first update; returns it and the round of that update.

    Raises:
        RunError: the site gave no update to this run, or no adapter is from before its first one.
    """
    first: dict[str, int] = {}
    for row in run.rows():
        if row.get("metric") == "bytes_up" and (row.get("site") or row.get("scope") == ALL_SITES):
            first.setdefault(str(row.get("site") or site), int(row["round"]))  # in a row of many it may be
    if site not in first:
        message = f'site "{site}" gave no update to this run{nearest(site, list(first))}'
        raise RunError(message, remedy=f"the sites that did: {', '.join(sorted(first)) or 'none'}")
    before = [adapter for adapter in lineage(run) if adapter.round < first[site]]
    if not before:
        message = (
            f'site "{site}" is in every adapter of this run: its first update was in round {first[site]}, the first '
            f"adapter was kept later, and its updates were summed and not kept. {_bound(run, site)}"
        )
        raise RunError(message, remedy=f'begin a new run without it: sites.excluded = ["{site}"]')
    read_adapter(before[-1].folder)
    _write_back(run, before[-1], out, {"removed": {"site": site, "first_round": first[site]}})
    return before[-1], first[site]


def _removable(path: Path, folder: Path, stage: str, slots: Slots | None) -> Slots:
    """The slots, if this one can go."""
    headed = (folder / "head.safetensors").is_file()
    if slots is None or headed:
        why = "a trained head holds what all stages taught" if headed else "one pair holds what all stages taught"
        raise RunError(f'stage "{stage}" cannot be taken out: {why}', remedy=_way_back(path, folder, stage))
    if stage not in slots.held:
        message = f'this adapter has no slot of a stage "{stage}"{nearest(stage, slots.held)}'
        raise RunError(message, remedy=f"it has {', '.join(slots.held)}")
    if len(slots.held) == 1:
        message = f'"{stage}" is the only slot: without it there is no adapter'
        raise RunError(message, remedy="use the base model as it is")
    return slots


def _way_back(path: Path, folder: Path, stage: str) -> str:
    """What to do where a stage cannot be cut out."""
    if path == folder:
        return "give the run's directory, to be told of its older adapters"
    older = lineage(RunDir.open(path))
    names = [adapter.stage for adapter in older]
    if stage not in names:
        return f"the run has kept {', '.join(names) or 'nothing'}{nearest(stage, names)}"
    if names.index(stage) == 0:
        able = " or ".join(f'"{name}"' for name, guard in GUARDS.items() if guard.marks_pairs)
        return f"no adapter is from before it: train anew without it; a run with the guard {able} could cut it out"
    before = names[names.index(stage) - 1]
    return f"go back to before it, losing what came later: llmchain-fl restore {path} --stage {before} --out DIR"


def _find(run: RunDir, stage: str, round: int) -> Kept:
    older = lineage(run)
    names = [adapter.stage for adapter in older]
    if stage:
        if stage not in names:
            message = f'no adapter was kept of a stage "{stage}"{nearest(stage, names)}'
            raise RunError(message, remedy=f"the run has kept {', '.join(names) or 'none yet'}")
        return older[names.index(stage)]
    upto = [adapter for adapter in older if adapter.round <= round]
    if not upto:
        rounds = ", ".join(str(adapter.round) for adapter in older) or "none yet"
        raise RunError(f"no adapter was kept up to round {round}", remedy=f"adapters were kept in rounds: {rounds}")
    return upto[-1]


def _write_back(run: RunDir, adapter: Kept, out: Path, more: Mapping[str, Any]) -> None:
    latest = _manifest(run.adapter)["content"] if (run.adapter / _MANIFEST).is_file() else None
    origin = {"from": adapter.folder.relative_to(run.path).as_posix(), "instead_of": latest}
    _copied(adapter.folder, out)
    write_json(out / _MANIFEST, {**_manifest(adapter.folder), "restored": origin, **more})


def _copied(folder: Path, out: Path) -> None:
    """All files but the manifest, which is written last: a folder without one is no adapter yet."""
    if out.exists():
        raise RunError(f"{out} is there already", remedy="name a folder that is not there yet")
    shutil.copytree(folder, out, ignore=shutil.ignore_patterns(_MANIFEST))


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        if {"content", "stage", "round"} <= manifest.keys():
            return manifest
    except (OSError, ValueError, AttributeError):
        pass
    raise RunError(f"{folder / _MANIFEST} is missing or damaged", remedy="restore the folder from a backup")


def _bound(run: RunDir, site: str) -> str:
    """What differential privacy says about a site that cannot be taken out."""
    privacy = run.read_privacy()
    spent = privacy.get("sites", {}).get(site, {}).get("epsilon")
    if not privacy.get("private") or spent is None:
        return "Privacy was off, so nothing bounds what an adapter tells about it."
    terms = guarantee(float(privacy["delta"]), privacy["unit"], privacy["accountant"], str(privacy.get("noise") or ""))
    bound = epsilon_text(spent, terms)
    return f"What an adapter tells about one {privacy['unit']} of it is bounded: epsilon {bound}."
