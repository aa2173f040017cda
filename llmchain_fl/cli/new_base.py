"""``llmchain-fl new-base FOLDER --texts FILE``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    folder: Annotated[Path, typer.Argument(help="Where it goes: a new folder.")],
    texts: Annotated[list[Path], typer.Option("--texts", help="A public file, one text a line.")],
    encoder: Annotated[bool, typer.Option("--encoder", help="For masked-lm; else a decoder, for plain-text.")] = False,
    vocabulary: Annotated[int, typer.Option("--vocabulary", help="How many tokens there are.")] = 2000,
    width: Annotated[int, typer.Option("--width", help="Numbers a token.")] = 128,
    layers: Annotated[int, typer.Option("--layers")] = 4,
    positions: Annotated[int, typer.Option("--positions", help="Longest text, in tokens.")] = 512,
    seed: Annotated[int, typer.Option("--seed", help="Of the weights.")] = 1,
    run: Annotated[
        str, typer.Option("--run", help="The scenario it is for: its training records are refused as texts.")
    ] = "",
) -> None:
    """Make a small base from nothing: a tokenizer of public texts, weights drawn by a seed."""
    from llmchain_fl.config.read import read_config
    from llmchain_fl.new_base import Shape, new_base
    from llmchain_fl.scenario import find_scenario

    shape = Shape(encoder, vocabulary, width, layers, positions)
    count = new_base(folder, texts, shape, seed, read_config(find_scenario(run)) if run else None)
    typer.echo(f"{folder}: {count:,} parameters, {vocabulary:,} tokens; trained on nothing yet (docs/pre-training.md)")
