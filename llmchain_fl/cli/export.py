"""``llmchain-fl export``: an adapter in forms that others read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmchain_fl.cli.hub import HOME, Home


def command(
    adapter: Annotated[Path, typer.Argument(help="A run, an adapter folder in it, or what `hub pull` left.")],
    out: Annotated[Path, typer.Option("--out", help="A folder that is not there yet.")],
    form: Annotated[str, typer.Option("--as", help="merged: into the base; peft: the adapter alone.")] = "merged",
    base: Annotated[str, typer.Option("--base", help="The base model's folder, if not as the adapter names it.")] = "",
    most_rank: Annotated[int, typer.Option("--most-rank", min=1, help="Of peft: what the reader takes.")] = 64,
    home: Home = HOME,
) -> None:
    """Write a model or an adapter that transformers, peft, vLLM and llama.cpp's converter read."""
    from llmchain_fl.cli.trained import find_adapter
    from llmchain_fl.export import export

    folder = find_adapter(adapter)
    if (folder / "hub.json").is_file():
        from llmchain_fl.hub.door import verified
        from llmchain_fl.hub.trust import read_trust

        base = verified(folder, read_trust(home.expanduser())).work_on(base).base.path
    exported = export(folder, out, form, base=base, most_rank=most_rank)
    typer.echo(f"{out}: outputs differ by {exported.difference:.1e} of the largest")
