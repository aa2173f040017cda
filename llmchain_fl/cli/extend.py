"""``llmchain-fl extend RUN``: a run goes further than it was planned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from llmchain_fl.config.schema import RunConfig
    from llmchain_fl.run_dir import RunDir


def command(
    run: Annotated[Path, typer.Argument(help="The directory of a run that is finished, or was stopped.")],
    stage_file: Annotated[
        list[Path] | None,
        typer.Option("--stage-file", help="A .toml file to lay over the run's settings: [[stage]], [stream.arrival]."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting: --set privacy.epsilon=12 (repeat it).")
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=0, help="So many more rounds of the last stage.")] = 0,
    backend: Annotated[str, typer.Option("--backend", help="in-process (default) or ray.")] = "in-process",
) -> None:
    """More stages, rounds or sites for a run: one lineage, one ledger, one report. A simulation is played at once."""
    from llmchain_fl.cli.apps import simulator
    from llmchain_fl.cli.simulate import check_backend, play
    from llmchain_fl.run_dir import RunDir, how_on_flower

    check_backend(backend)
    run_dir = RunDir.open(run)
    tool = simulator()
    config = tool.extend(_wanted(run_dir, stage_file or [], settings or [], rounds), run_dir)
    _tell(run_dir)
    if not tool.simulated(run_dir):
        typer.echo(f"go on with: {how_on_flower(run_dir)}")
        return
    stop = play(tool, config, run_dir, backend)
    if stop is not None:
        raise stop


def _wanted(run: RunDir, files: list[Path], settings: list[str], rounds: int) -> RunConfig:
    from llmchain_fl.config.calendar import stages_in_order
    from llmchain_fl.config.changes import lay_over
    from llmchain_fl.config.read import apply_settings, build, read_config
    from llmchain_fl.core.toml_file import read_toml

    last = stages_in_order(read_config(run.config))[-1].name
    tree: dict[str, Any] = read_toml(run.config)
    for stage in tree["stage"]:
        if stage["name"] == last:
            stage["rounds"] += rounds
    for file in files:
        lay_over(tree, read_toml(file))
    return build(apply_settings(tree, settings))


def _tell(run: RunDir) -> None:
    """What is new, in one line."""
    from llmchain_fl.core.printable import printable

    for entry in run.read_changes()[-1:]:
        new = dict.fromkeys(_short(key, *pair) for key, pair in entry["changed"].items())
        noise = entry.get("noise_multiplier")
        suffix = f"; noise multiplier {noise:.3g}" if noise else ""
        typer.echo(printable(f"extended after round {entry['after_round']}: {', '.join(new) or 'nothing new'}{suffix}"))


def _short(key: str, old: object, new: object) -> str:
    if key.startswith("stage.") and old is None:
        return f'stage "{key.removeprefix("stage.").rpartition(".")[0]}"'
    if key.startswith("stream.arrival.") and old is None:
        return f'site "{key.removeprefix("stream.arrival.")}"'
    return f"{key} = {new}"
