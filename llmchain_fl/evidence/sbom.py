"""What is installed, as a CycloneDX 1.5 bill of materials: read from the packages' own metadata, without a network.

Direct needs of this project and everything else in the environment alike: what could be imported is listed. No time and
no serial number are written, so that the same environment gives the same bytes.

==================================  ======================================================================
package                             entry
==================================  ======================================================================
with a licence expression           ``expression``, as its metadata has it (PEP 639)
with one line of licence, or        ``name``; of several classifiers the first
a classifier only
without any                         no ``licenses``: whoever reads it must ask the project
installed with a RECORD             ``hashes``: SHA-256 of that list, which holds the hash of each file
the same name twice on the path     the first, which is what is imported
==================================  ======================================================================
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from importlib import metadata
from typing import Any

from llmchain_fl import __version__

SPEC = "1.5"
OURS = "llmchain-fl"
LONGEST = 100
"""Of a licence's name: a longer one is its whole text."""


def sbom() -> bytes:
    """The bill, as JSON."""
    components: dict[str, dict[str, Any]] = {}
    for package in metadata.distributions():
        name = re.sub(r"[-_.]+", "-", package.metadata["Name"] or "").lower()
        if name and name != OURS:
            components.setdefault(name, _component(name, package))
    own = {"type": "application", "bom-ref": _purl(OURS, __version__), "name": OURS, "version": __version__}
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "version": 1,
        "metadata": {"component": {**own, "purl": own["bom-ref"]}},
        "components": [components[name] for name in sorted(components)],
        "dependencies": [{"ref": own["bom-ref"], "dependsOn": _needed(components)}],
    }
    return (json.dumps(bill, indent=1, ensure_ascii=True) + "\n").encode()


def _component(name: str, package: metadata.Distribution) -> dict[str, Any]:
    purl = _purl(name, package.version)
    licences, record = _licences(package.metadata), package.read_text("RECORD")
    hashes = [] if record is None else [{"alg": "SHA-256", "content": hashlib.sha256(record.encode()).hexdigest()}]
    fields = {"type": "library", "bom-ref": purl, "name": name, "version": package.version, "purl": purl}
    return {**fields, **({"licenses": licences} if licences else {}), **({"hashes": hashes} if hashes else {})}


def _licences(package: metadata.PackageMetadata) -> list[dict[str, Any]]:
    expression, text = (package[name].strip() if name in package else "" for name in ("License-Expression", "License"))
    if expression:
        return [{"expression": expression}]
    classes = [one.rpartition(" :: ")[2] for one in package.get_all("Classifier") or () if one.startswith("License ::")]
    named = [text] if text and "\n" not in text and len(text) <= LONGEST and text != "UNKNOWN" else classes
    return [{"license": {"name": named[0]}}] if named else []


def _needed(installed: Iterable[str]) -> list[str]:
    """What this project asks for by name, of what is there."""
    try:
        required = metadata.requires(OURS) or []
    except metadata.PackageNotFoundError:
        return []
    names = {re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", one)[0]).lower() for one in required}
    return [_purl(name, metadata.version(name)) for name in sorted(names & set(installed))]


def _purl(name: str, version: str) -> str:
    return f"pkg:pypi/{name}@{version}"
