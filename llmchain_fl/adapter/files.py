"""An adapter on disk: peft's own files, the head, what it is for, and where it comes from.

::

    adapter_config.json         peft's: PeftModel.from_pretrained(base, folder) reads these two
    adapter_model.safetensors
    head.safetensors            a trained head, if there is one
    work.json                   base, task, labels: enough to predict
    manifest.json               content hash, parent's hash, round, stage
    slots.safetensors           which rows belong to which stage, if there are slots (``slots_file.py``)
    README.md                   what it is, how private, and what plain peft serves of it (``card.py``)
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors.numpy import save

from llmchain_fl.adapter.card import NAME, Facts, card
from llmchain_fl.adapter.peft_files import read_peft, read_tensors, write_peft, write_variant
from llmchain_fl.adapter.slots_file import Slots, write_slots
from llmchain_fl.atomic_file import atomic_write, write_json
from llmchain_fl.core.adapter.digest import digest
from llmchain_fl.core.adapter.peft_model import half_of
from llmchain_fl.core.adapter.resident import Resident
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.adapter.variants import VARIANTS
from llmchain_fl.core.errors import ModelError
from llmchain_fl.core.work import WorkSpec, inference


@dataclass(frozen=True)
class Lineage:
    """Where an adapter comes from. ``parent``: content hash of the adapter before it, empty for the first."""

    run: str
    round: int
    stage: str
    parent: str


def write_adapter(
    folder: Path,
    resident: Resident,
    arrays: Arrays,
    work: WorkSpec,
    lineage: Lineage,
    slots: Slots | None = None,
    privacy: str = "",
) -> str:
    """Write ``arrays`` (all of them: LoRA factors of any one rank or a variant's, and head); return their content hash.

    ``slots``: what stands beside them. ``privacy``: one sentence for the card and the manifest.
    """
    half = half_of(work.adapter)
    if half is None:
        write_peft(folder, arrays, resident.peft_config)
    else:
        write_variant(folder, arrays, resident.peft_config, half, resident.base.module)
    head = {name: value for name, value in arrays.items() if name.startswith("head.")}
    (folder / "head.safetensors").unlink(missing_ok=True)
    if head:
        atomic_write(folder / "head.safetensors", save(head))
    rank = next((value.shape[0] for name, value in arrays.items() if name.endswith(".lora_A")), work.adapter.rank)
    served = ("lora_A", "lora_B") if half is None else VARIANTS[work.adapter.variant].trained
    shape = replace(work.adapter, rank=rank, alpha=work.adapter.scale * rank, trained=served)
    plain = replace(inference(work), adapter=shape)
    atomic_write(folder / "work.json", plain.to_json().encode())
    content = digest(arrays)
    manifest = {"content": content, **vars(lineage), "base": resident.base.public_name}
    manifest |= {"privacy": privacy} if privacy else {}
    write_slots(folder, slots, content)
    write_card(folder, plain, arrays, slots, manifest)
    write_json(folder / "manifest.json", manifest)
    return content


def write_card(
    folder: Path, work: WorkSpec, arrays: Arrays, slots: Slots | None, manifest: Mapping[str, object]
) -> None:
    """``README.md`` of an adapter."""
    held, chooses = ((), False) if slots is None else (slots.held, bool(slots.route))
    atomic_write(folder / NAME, card(work, arrays, Facts(manifest, held, chooses)).encode())


def read_adapter(folder: Path) -> tuple[WorkSpec, Arrays]:
    """What ``write_adapter`` wrote.

    Raises:
        ModelError: files are missing, or the content is not what the manifest says.
    """
    if not (folder / "work.json").is_file():
        raise ModelError(
            f"{folder} holds no adapter of this project",
            remedy="give a run directory with a finished stage, or its adapter folder",
        )
    text = (folder / "work.json").read_text(encoding="utf-8")
    work = WorkSpec.from_json(text.replace('"among":', '"candidate_labels":'))  # as versions to 0.2.0 call it
    arrays = read_peft(folder, half_of(work.adapter))
    if (folder / "head.safetensors").is_file():
        arrays |= read_tensors(folder / "head.safetensors")
    said: object = None
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        said = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["content"]
    if said != digest(arrays):
        raise ModelError(
            f"the adapter in {folder} is not the one its manifest names",
            remedy="restore the folder; it was changed by hand or damaged",
        )
    return work, arrays
