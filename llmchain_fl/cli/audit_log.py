"""``llmchain-fl audit-log``: the audit log of a site or of a run, shown, verified, handed on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from llmchain_fl.audit_log import read_log
from llmchain_fl.core.audit import FILE
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.printable import printable
from llmchain_fl.report.wording import epsilon_text

app = typer.Typer(help="What was asked, what was decided, what left: the audit log of a site or of a run.")
Place = Annotated[Path, typer.Argument(help="A site file (site.toml), or the folder of a run.")]


def log_file(path: Path) -> Path:
    """The log of a site file, or of a run.

    Raises:
        ConfigError: it is neither.
        RunError: it is no run.
    """
    if path.suffix != ".toml":
        from llmchain_fl.run_dir import RunDir

        return RunDir.open(path).audit / FILE
    return _site(path).audit.file  # type: ignore[no-any-return]


def _site(path: Path) -> Any:
    from llmchain_fl.cli.privacy_ledger import app_module

    return app_module("client.site").read_site(path)


@app.command("show")
def show(
    path: Place,
    last: Annotated[int, typer.Option("--last", min=0, help="Only so many of the newest lines; 0: all.")] = 0,
) -> None:
    """Verify the log and print it, one line an entry."""
    for entry in read_log(log_file(path))[-last:]:
        typer.echo(line(entry))


@app.command("verify")
def verify(path: Place) -> None:
    """Verify that no line was changed since it was written; exit code 2 names the first one that was."""
    file = log_file(path)
    entries = read_log(file)
    if not entries:
        typer.echo(f"{file}: no line yet")
        return
    typer.echo(f"{file}: {len(entries)} lines, from {entries[0]['time']} to {entries[-1]['time']}, none changed")
    typer.echo(f"head {entries[-1]['hash']}: note it down elsewhere, and a shorter log will not pass for this one")


@app.command("export")
def export(
    path: Place,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write a site's signed part of the evidence, a zip, instead.")
    ] = None,
) -> None:
    """Verify the log and print its lines as they are (JSON); or write what a site hands to its coordinator."""
    if out is None:
        read_log(log_file(path))
        data = log_file(path).read_bytes() if log_file(path).exists() else b""
        typer.echo(data[: data.rfind(b"\n") + 1], nl=False)
        return
    if path.suffix != ".toml":
        raise ConfigError([f"{path} is no site file"], remedy="of a run, write the whole: llmchain-fl evidence RUN")
    from llmchain_fl.atomic_file import atomic_write
    from llmchain_fl.evidence.pack import site_part, zipped

    atomic_write(out, zipped(site_part(_site(path))))
    typer.echo(f"wrote {out}: hand it to the coordinator, who puts it into the evidence (--site {out.name})")


def line(entry: Mapping[str, Any]) -> str:
    """An entry in words: when, what, who, how it ended, what it cost."""
    words = [entry["time"], f"{entry['type']:9}"]
    words += [
        str(entry[name]) for name in ("site", "kind", "decision", "why", "what", "by", "version") if entry.get(name)
    ]
    if entry.get("run"):
        words.append(f"run {entry['run'][:8]} round {entry['round']}")
    if "reply_bytes" in entry:
        words.append(f"{entry['reply_bytes']} bytes {entry['reply'][:12]}")
    if "before" in entry and entry["ledger"]:
        words.append(f"epsilon {_number(entry['before'])} -> {_number(entry['ledger']['epsilon'])}")
        words.append("(delta {delta:g}, unit {unit}, accountant {accountant})".format(**entry["ledger"]))
    if entry["type"] == "changed":
        words.append(f"settings {entry['was'][:12]} -> {entry['policy'][:12]}")
    return printable("  ".join(words))


def _number(epsilon: float | None) -> str:
    return "none" if epsilon is None else epsilon_text(epsilon)
