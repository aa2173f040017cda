"""The one door to an adapter that somebody published: what comes out of it was signed, is whole, and fits.

Serving loads adapters through :func:`verified` only. What it returns was read once and checked as read: nothing is
opened again afterwards, so nothing can be changed in between.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmchain_fl.adapter.slots_file import Slots, read_slots
from llmchain_fl.core.adapter.digest import digest
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.base_digest import base_digest
from llmchain_fl.core.base_model import locate
from llmchain_fl.core.errors import LlmchainError, ModelError
from llmchain_fl.core.work import WorkSpec
from llmchain_fl.hub import layout
from llmchain_fl.hub.manifest import Manifest, read_manifest
from llmchain_fl.hub.peft_config import check_config
from llmchain_fl.hub.refused import refuse
from llmchain_fl.hub.signing import ADAPTER, check_signature, sha256
from llmchain_fl.hub.strict_json import Tree, parse_object
from llmchain_fl.hub.tensors import adapter_arrays, read_arrays
from llmchain_fl.hub.trust import Trust


@dataclass(frozen=True)
class VerifiedAdapter:
    """An adapter that passed every check of :func:`verified`; do not make one in another way.

    Attributes:
        folder: where it was read.
        manifest: name, version, base, parent, hashes, as signed.
        publisher: the name under which this machine trusts the signer.
        work: what it is for. Its base is named in the publisher's words: load it through :meth:`work_on`.
        arrays: LoRA factors and head, read-only.
        slots: what stands beside them, where a text chooses.
        files: every signed file as it was read.
    """

    folder: Path
    manifest: Manifest
    publisher: str
    work: WorkSpec
    arrays: Arrays
    slots: Slots | None
    files: Mapping[str, bytes]

    @property
    def address(self) -> str:
        """SHA-256 of the signed manifest: names this version, and all that is in it, for ever."""
        return self.manifest.address

    @property
    def label(self) -> str:
        """``name@version``."""
        return self.manifest.label

    @property
    def parent(self) -> str:
        """Address of the version before it; "" for the first."""
        return self.manifest.parent

    @property
    def card(self) -> Tree:
        """``card.json`` as signed; ``hub verify`` computes its numbers anew."""
        return parse_object(self.files[layout.CARD], layout.CARD, layout.BOUNDS[layout.CARD])

    def to_load(self) -> Arrays:
        """What ``Resident.load`` takes: the arrays, and the choice among slots where there is one."""
        return self.arrays | (self.slots.arrays() if self.slots is not None else {})

    def work_on(self, base: str = "") -> WorkSpec:
        """The work over a base model of this machine.

        Args:
            base: a folder or a known name; "" takes the published name where that is a known one or a folder.

        Raises:
            HubError: base: it is another model than the adapter was made for.
        """
        place = base or self.work.base.path
        try:
            located = locate(place)
            here = base_digest(Path(located.path)) if located.local else ""
        except ModelError as error:
            raise refuse("base", error.what) from None
        if here != self.manifest.base_digest:
            other = "another model" if here else "not a folder of this machine"
            raise refuse("base", f"{place} is {other}; the adapter was made for {self.manifest.base_name}")
        return replace(self.work, base=replace(self.work.base, path=place, revision=""))


def verified(folder: Path, trust: Trust) -> VerifiedAdapter:
    """Read a hub folder, or refuse it; nothing of it is used before all of this holds.

    ======================================================================  ===================
    check                                                                   refused by the word
    ======================================================================  ===================
    only files of the layout, none of them a link, a pipe, a device         extra, link, name
    the manifest is canonical, within its bounds                            form, size, missing
    its publisher is trusted here and signed it                             publisher, signature
    the publisher has not taken it back                                     revoked
    every file is there, as large as signed, with the hash that was signed  size, missing, hash
    work description, peft's configuration and tensors agree; all finite    form, tensors
    the arrays are those that the lineage names                             tensors, form
    ======================================================================  ===================

    The base model is checked where it is known: :meth:`VerifiedAdapter.work_on`.

    Args:
        folder: what ``hub pull`` left.
        trust: of this machine (``read_trust``).

    Raises:
        HubError: the first check that does not hold.
    """
    there = layout.entries(folder)
    data = layout.read_inside(folder, layout.MANIFEST, layout.SIGNED[layout.MANIFEST])
    message = layout.read_inside(folder, layout.SIGNATURE, layout.SIGNED[layout.SIGNATURE])
    manifest, publisher = signed_manifest(data, message, trust)
    extra = sorted(set(there) - set(manifest.files) - set(layout.SIGNED))
    if extra:
        raise refuse("extra", f"{extra[0]} is not signed")
    return checked(folder, manifest, publisher, {name: _file(folder, manifest, name) for name in manifest.files})


def signed_manifest(data: bytes, message: bytes, trust: Trust) -> tuple[Manifest, str]:
    """(a manifest, its publisher's name here), its signature, publisher and revocation checked.

    Raises:
        HubError: form, size, name, missing, publisher, signature, revoked.
    """
    manifest = read_manifest(data)
    publisher = trust.name_of(manifest.publisher)
    check_signature(message, ADAPTER, data, manifest.publisher)
    reason = trust.seen_of(manifest.publisher).revoked.get(manifest.address)
    if reason is not None:
        raise refuse("revoked", f"{manifest.label} was taken back: {reason}")
    return manifest, publisher


def checked(folder: Path, manifest: Manifest, publisher: str, files: Mapping[str, bytes]) -> VerifiedAdapter:
    """The adapter that ``files`` are, whose hashes hold.

    Raises:
        HubError: form, tensors, name: see :func:`verified`.
    """
    work = read_work(files[layout.WORK])
    arrays = adapter_arrays(files[layout.WEIGHTS], files.get(layout.HEAD), work)
    check_config(files[layout.CONFIG], work, arrays, manifest.base_name)
    lineage = parse_object(files[layout.LINEAGE], layout.LINEAGE, layout.BOUNDS[layout.LINEAGE])
    if not manifest.content == lineage.get("content") == digest(arrays):
        raise refuse("tensors", "the arrays are not those that manifest.json and hub.json name")
    parse_object(files[layout.CARD], layout.CARD, layout.BOUNDS[layout.CARD])
    slots = _slots(files.get(layout.SLOTS), arrays)
    return VerifiedAdapter(folder, manifest, publisher, work, arrays, slots, files)


def read_work(data: bytes) -> WorkSpec:
    """``work.json``: within its bounds, and a task that is not another package's.

    Raises:
        HubError: form.
    """
    parse_object(data, layout.WORK, layout.BOUNDS[layout.WORK])
    try:
        return WorkSpec.from_json(data.decode("utf-8"))
    except LlmchainError as error:
        message = error.what.splitlines()[0]
    raise refuse("form", f"work.json: {message}")


def _file(folder: Path, manifest: Manifest, name: str) -> bytes:
    stored = manifest.files[name]
    data = layout.read_inside(folder, name, stored.size)
    if len(data) != stored.size or sha256(data) != stored.sha256:
        raise refuse("hash", f"{name} is not the file that was signed")
    return data


def _slots(data: bytes | None, arrays: Arrays) -> Slots | None:
    """The slots, read by their own reader from the very bytes that were checked."""
    if data is None:
        return None
    tensors: dict[str, Any] = read_arrays(data, layout.SLOTS)
    wrong = [name for name, value in tensors.items() if value.ndim > 2]
    if wrong:
        raise refuse("tensors", "slots.safetensors holds a tensor that is none of slots")
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / layout.SLOTS).write_bytes(data)
        try:
            return read_slots(Path(place), arrays)
        except ModelError:
            pass
    raise refuse("tensors", "slots.safetensors does not fit the adapter")
