"""One signed archive of a run: what was declared, what was logged on both sides, and digests of what ran.

::

    manifest.json, manifest.sig       digests of all files, code, models; signed by the coordinator
    run/config.toml, privacy.json     the settings, and what each site has spent by the server's book
    run/settings/SHA256.toml          settings that it had before it went on, or was extended, with others
    run/audit.jsonl, code.json        the coordinator's audit log; each file of the installed code with its digest
    run/report.html, gate.json, sbom.json
    sites/NAME/statement.json, .sig   limits and trust as declared, heads of the logs; signed by the site
    sites/NAME/audit.jsonl, ledger.jsonl

A site's folder leaves the site as it is: no record is in it, no name of a person, no hash of one, no path. The ledger's
lines hold mechanisms, names of groups, and digests of the register's files, whose content stays.

The same content gives the same bytes: names are sorted, nothing is compressed, no time is written. Signatures are those
of :mod:`llmchain_fl.core.secure.identity`, of kinds of their own. ``verify.py`` checks it.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from llmchain_fl import __version__
from llmchain_fl.audit_log import read_log
from llmchain_fl.bundle import SERVER, SITE, parts
from llmchain_fl.cli.apps import app_root
from llmchain_fl.config.read import read_config
from llmchain_fl.core.audit import AuditLog
from llmchain_fl.core.base_digest import base_digest
from llmchain_fl.core.base_model import locate
from llmchain_fl.core.errors import ConfigError, RunError
from llmchain_fl.core.privacy.durable import content, make_folder
from llmchain_fl.core.secure.identity import Identity, canonical, make_identity
from llmchain_fl.onprem.site_view import Site
from llmchain_fl.privacy.reading import read_ledger
from llmchain_fl.run_dir import RunDir

FORMAT = 1
EPOCH = (1980, 1, 1, 0, 0, 0)
"""Time of every file in the archive: the earliest that a zip can hold."""
Files = dict[str, bytes]


def site_part(site: Site) -> Files:
    """What a site hands out about itself, signed with its identity (made where there is none).

    Raises:
        PrivacyError: its ledger or its audit log cannot be trusted.
        SecureSumError: its identity is damaged.
    """
    limits, log = site.limits, read_log(site.audit.file)
    terms = {"site": site.name, "delta": limits.delta, "accountant": "pld", "epsilon_limit": limits.epsilon}
    ledger = read_ledger(site.ledger_folder, site.anchor_file, **terms)  # type: ignore[arg-type]
    files = {"audit.jsonl": _whole(site.audit.file), "ledger.jsonl": _whole(site.ledger_folder / "events.jsonl")}
    make_folder(site.identity_file.absolute().parent)
    identity = make_identity(site.identity_file)
    secure = {name: value for name, value in site.secure.model_dump().items() if name != "identity"}
    statement = {
        "format": FORMAT,
        "site": site.name,
        "version": __version__,
        "identity": identity.public,
        "files": {name: _sha256(data) for name, data in files.items()},
        "audit": _end(log),
        "ledger": {"seq": ledger.length, "head": ledger.head} if ledger is not None else None,
        "limits": limits.model_dump(),
        "secure": secure,
        "policy": site.policy,
        "code": code_digest(SITE),
    }
    return {**files, **_signed("statement", "evidence site", statement, identity)}


def run_part(run: RunDir, gate: Path | None, sbom: bytes) -> Files:
    """What the coordinator knows of a run; ``gate``: what ``privacy audit --json`` has printed.

    Raises:
        RunError: the run has no audit log, or an earlier version began it.
    """
    files = {
        "config.toml": run.config.read_bytes(),
        "privacy.json": content(run.privacy) or b'{"private": false, "sites": {}}\n',
        "audit.jsonl": _whole(AuditLog(run.audit, "coordinator", "").file),
        "code.json": canonical({"site": code(SITE), "server": code(SERVER)}),
        "sbom.json": sbom,
    }
    files |= {f"settings/{file.name}": file.read_bytes() for file in sorted(run.earlier.glob("*.toml"))}
    optional = {"report.html": content(run.report), "gate.json": None if gate is None else gate.read_bytes()}
    if not files["audit.jsonl"]:
        raise RunError(f"{run.path} has no audit log", remedy="play the run with this version; earlier ones wrote none")
    return {**files, **{name: data for name, data in optional.items() if data is not None}}


def packed(run: RunDir, own: Files, sites: Mapping[str, Files], identity: Identity) -> bytes:
    """The archive of a run out of its part and the parts of its sites."""
    log = read_log(AuditLog(run.audit, "coordinator", "").file)
    files = {f"run/{name}": data for name, data in own.items()}
    for site, part in sites.items():
        files |= {f"sites/{site}/{name}": data for name, data in part.items()}
    manifest = {
        "format": FORMAT,
        "run": run_name(log),
        "version": __version__,
        "identity": identity.public,
        "files": {name: _sha256(data) for name, data in files.items()},
        "sites": {name: str(json.loads(part["statement.json"])["identity"]) for name, part in sites.items()},
        "audit": _end(log),
        "code": {"site": code_digest(SITE), "server": code_digest(SERVER)},
        "model": model_digests(run),
    }
    return zipped({**files, **_signed("manifest", "evidence", manifest, identity)})


def run_name(log: list[dict[str, Any]]) -> str:
    """The run's name in its tasks.

    Raises:
        RunError: no site was ever asked.
    """
    names = {str(entry["run"]).partition("/")[0] for entry in log if entry["type"] == "asked"} - {""}
    if len(names) != 1:
        raise RunError(f"the audit log tells of {len(names)} runs", remedy="play the run first, in a folder of its own")
    return names.pop()


@lru_cache(maxsize=2)
def code(app: str) -> list[list[str]]:
    """[path, SHA-256] of every file that may run at a site or at the server."""
    return [[part.path, part.sha256] for part in parts(app_root(), app)]


def code_digest(app: str) -> str:
    """One digest of :func:`code`."""
    return _sha256(canonical(code(app)))


def model_digests(run: RunDir) -> dict[str, Any]:
    """The base model's digest ("" for one of a hub), and those of the adapter's files."""
    where = locate(read_config(run.config, []).model.path)
    files = sorted(run.adapter.iterdir()) if run.adapter.is_dir() else []
    base = base_digest(Path(where.path)) if where.local else ""
    return {"base": base, "adapter": {file.name: _sha256(file.read_bytes()) for file in files if file.is_file()}}


def zipped(files: Files) -> bytes:
    """The same files as the same bytes, on every machine."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, EPOCH)
            info.create_system, info.external_attr = 3, 0o600 << 16
            archive.writestr(info, files[name])
    return made.getvalue()


def unzipped_part(path: Path) -> tuple[str, Files]:
    """(the site, its files) of what ``audit-log export SITE --out FILE.zip`` wrote.

    Raises:
        ConfigError: it is something else.
    """
    names = ("audit.jsonl", "ledger.jsonl", "statement.json", "statement.sig")
    try:
        with zipfile.ZipFile(path) as archive:
            files = {name: archive.read(name) for name in names}
        return str(json.loads(files["statement.json"])["site"]), files
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError):
        remedy = "ask the site for what `llmchain-fl audit-log export site.toml --out FILE.zip` writes"
        raise ConfigError([f"{path} is no part of a site"], remedy=remedy) from None


def _signed(name: str, kind: str, fields: Mapping[str, Any], identity: Identity) -> Files:
    data = canonical(fields)
    return {f"{name}.json": data, f"{name}.sig": identity.signed(kind, {"sha256": _sha256(data)})}


def _end(log: list[dict[str, Any]]) -> dict[str, Any] | None:
    return {"seq": log[-1]["seq"], "head": log[-1]["hash"]} if log else None


def _whole(file: Path) -> bytes:
    """A log without a torn last line."""
    data = content(file) or b""
    return data[: data.rfind(b"\n") + 1]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
