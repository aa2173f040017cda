"""Which code a federation runs, as two digests.

* ``code``: of the files that run at a site (``llmchain-fl bundle --list``), by name and content: it can be compared on
  any machine with this package.
* ``bundle``: SHA-256 of the bytes that Flower ships for a run from a checkout, what an executor at a site compares. It
  depends on the compression library of the machine that makes it, so it is made where runs are started.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from llmchain_fl.bundle import SITE, parts


def code_digest(root: Path) -> str:
    """``sha256:...`` over the files below ``root`` that run at a site."""
    listed = "".join(f"{part.sha256}  {part.path}\n" for part in parts(root, SITE))
    return f"sha256:{hashlib.sha256(listed.encode()).hexdigest()}"


def bundle_digest(root: Path) -> str:
    """``sha256:...`` of the bundle that ``flwr run`` makes of ``root``; "" where that is no checkout."""
    if not (root / "pyproject.toml").is_file():
        return ""
    from flwr.cli.build import build_fab_from_disk

    return f"sha256:{hashlib.sha256(build_fab_from_disk(root)).hexdigest()}"
