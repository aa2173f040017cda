"""Sign a folder: list every file with its hash in ``hub.json``, and put the publisher's signature beside it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from llmchain_fl import __version__
from llmchain_fl.atomic_file import atomic_write
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.secure.identity import Identity
from llmchain_fl.hub import layout
from llmchain_fl.hub.manifest import Manifest, Stored, read_manifest, time_text
from llmchain_fl.hub.signing import ADAPTER, sha256, signature
from llmchain_fl.hub.strict_json import parse_object

MADE_BY = f"llmchain-fl {__version__}"


def seal(
    folder: Path, identity: Identity, *, name: str, version: int, base_name: str, base_digest: str, parent: str = ""
) -> Manifest:
    """Sign what stands in ``folder``; a signature that was there is replaced.

    Args:
        folder: files of the layout and no others (``publish`` makes it of a run).
        identity: of the publisher.
        name: of the adapter.
        version: from 1.
        base_name: by which others can find the base model.
        base_digest: of the base model's folder.
        parent: address of the version it was trained on from.

    Raises:
        ConfigError: name, version or base are none.
        HubError: name, missing, size, link, extra: a file is none of the layout, or lacks.
    """
    if not layout.is_name(name) or not 1 <= version < 2**31:
        remedy = "lower-case letters, digits, . _ - and a version from 1"
        raise ConfigError([f"{name!r} version {version} is no name of an adapter"], remedy=remedy)
    files = {}
    for file in layout.entries(folder):
        if file not in layout.SIGNED:
            data = layout.read_inside(folder, file, layout.BOUNDS.get(file, 0))
            files[file] = Stored(sha256(data), len(data))
    lineage = parse_object((folder / layout.LINEAGE).read_bytes(), layout.LINEAGE, layout.BOUNDS[layout.LINEAGE])
    manifest = Manifest(
        name=name,
        version=version,
        publisher=identity.public,
        issued=time_text(datetime.now(UTC)),
        made_by=MADE_BY,
        base_name=base_name,
        base_digest=base_digest,
        content=str(lineage["content"]),
        parent=parent,
        files=files,
    )
    data = manifest.to_bytes()
    read_manifest(data)
    atomic_write(folder / layout.MANIFEST, data)
    atomic_write(folder / layout.SIGNATURE, signature(identity, ADAPTER, data))
    return manifest
