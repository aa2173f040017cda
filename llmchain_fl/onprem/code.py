"""Which code a federation runs, as two digests.

* ``code``: of the files that run at a site (``llmchain-fl bundle --list``), by name and content: it can be compared on
  any machine with this package.
* ``bundle``: SHA-256 of the bytes that Flower ships for a run, what an executor at a site compares. It
  depends on the compression library of the machine that makes it, so it is made where runs are started.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from llmchain_fl.bundle import PACKAGE, SITE, parts
from llmchain_fl.core.errors import ConfigError

PROJECT = "pyproject.toml"


def code_digest(root: Path) -> str:
    """``sha256:...`` over the files below ``root`` that run at a site."""
    listed = "".join(f"{part.sha256}  {part.path}\n" for part in parts(root, SITE))
    return f"sha256:{hashlib.sha256(listed.encode()).hexdigest()}"


def bundle_digest(root: Path) -> str:
    """``sha256:...`` of the bundle that ``flwr run`` makes of ``root``; "" where nothing says how it is made."""
    if not (root / PROJECT).is_file():
        return ""
    return f"sha256:{hashlib.sha256(bundle_bytes(root)).hexdigest()}"


def bundle_bytes(root: Path) -> bytes:
    """The bundle that Flower ships of ``root``, the folder of the apps: the same bytes from a wheel as from a checkout.

    Raises:
        ConfigError: nothing says how it is made.
    """
    if not (root / PROJECT).is_file():
        raise ConfigError(
            [f"{root} holds no {PROJECT}, which says what a bundle is made of"],
            remedy="install llmchain-fl anew, or start runs from a checkout of this version",
        )
    from flwr.cli.build import build_fab_from_files
    from flwr.cli.utils import collect_files

    files = collect_files(root)
    if root.parent == PACKAGE:  # a wheel: the package lies around the apps, not beside them
        own = {name: file for name, file in collect_files(PACKAGE).items() if root not in file.parents}
        files |= {f"{PACKAGE.name}/{name}": file for name, file in own.items()}
    return bytes(build_fab_from_files(files)[0])
