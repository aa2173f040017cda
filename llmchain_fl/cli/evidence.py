"""``llmchain-fl evidence`` and ``llmchain-fl sbom``: what an outsider needs to check a run, and what is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    path: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    out: Annotated[Path, typer.Option("--out", help="Where to write the archive (zip).")],
    site: Annotated[
        list[Path] | None,
        typer.Option(
            "--site", help="A site's part (`audit-log export site.toml --out`), or a site file of this machine."
        ),
    ] = None,
    gate: Annotated[Path | None, typer.Option("--gate", help="What `privacy audit --json` has printed.")] = None,
    key: Annotated[
        Path | None, typer.Option("--key", help="The coordinator's private key; made if missing. Default: in RUN.")
    ] = None,
) -> None:
    """Write one signed archive: settings, digests of code and models, audit logs, ledgers, report.

    Whoever gets it checks it with llmchain_fl/evidence/verify.py, which needs nothing else of this project.
    """
    from llmchain_fl.atomic_file import atomic_write
    from llmchain_fl.cli.privacy_ledger import app_module
    from llmchain_fl.core.privacy.durable import make_folder
    from llmchain_fl.core.secure.identity import make_identity
    from llmchain_fl.evidence.pack import packed, run_part, site_part, unzipped_part
    from llmchain_fl.evidence.sbom import sbom
    from llmchain_fl.run_dir import RunDir

    run, parts = RunDir.open(path), {}
    for one in site or ():
        if one.suffix == ".toml":
            read = app_module("client.site").read_site(one)
            parts[read.name] = site_part(read)
        else:
            name, parts_of = unzipped_part(one)
            parts[name] = parts_of
    own, file = run_part(run, gate, sbom()), key or run.state / "coordinator.key"
    make_folder(file.absolute().parent)
    identity = make_identity(file)
    atomic_write(out, packed(run, own, parts, identity))
    typer.echo(identity.public)
    typer.echo(
        f"wrote {out} with the parts of {len(parts)} sites; give the key above hand to hand to whoever checks it",
        err=True,
    )


def bill() -> None:
    """Print a CycloneDX 1.5 bill of materials of this installation: every package, version, licence, hash."""
    from llmchain_fl.evidence.sbom import sbom

    typer.echo(sbom(), nl=False)
