"""Hostile sites against robust rules: accuracy, and how often a backdoor opens, with 10, 20 and 30 % hostile sites.

    python benchmarks/bench_attacks.py                                  every robust rule, both attacks, seed 1
    python benchmarks/bench_attacks.py --robust none --seeds 1,2,3
    options: --attacks sign-flip,backdoor,noise,...   --shares 0.1,0.3   --set KEY=VALUE (repeatable)

BANKING77 (77 intents), 1,540 records over 10 like sites, query and value of MiniLM's last layer and a trained head, 4
short rounds. Every line with an attack stands beside the run without one: the same rule, the same seed, the same
records and batches. ``success``: share of the test records of other labels that get the attacker's label once the
trigger is put before them; ``by itself``: the same without the trigger. Every robust step is told to expect at most 3
hostile sites, also where there are fewer or none.

A sign-flip of strength 5 stops the plain mean at 17 % hostile sites (1 - p = 5 p) and turns it around beyond; a
backdoor is scaled by sites / hostile sites, which replaces the model under a plain mean.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import PlainView, last, need, show, spread, write
from flwr.clientapp import ClientApp

from client.app import make_app
from client.site import Site
from llmchain_fl.config.read import read_config
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.config.write import to_toml
from llmchain_fl.run_dir import RunDir
from llmchain_fl.scenario import find_scenario
from server.app import run_all
from simulations.backdoor import Success, armed, success_of
from simulations.grid import InProcessGrid
from simulations.hostile import HostileApp, Threat, hostile_sites
from simulations.prepare import prepare_sites

QUICK = [
    "stage.rounds=4",
    "train.steps=5",
    "train.sampling_rate=0.2",
    "train.micro_batch=64",
    "train.lr=0.01",
    "model.max_tokens=32",
    "adapter.rank=4",
    'adapter.targets=["query","value"]',
    "data.train_size=1540",
    "data.test_size=385",
    "sites.partition=iid",
    "aggregation.hostile=3",
    "sites.minimum=9",
]
ROBUST = ["none", "norm-bound", "median", "trimmed-mean", "krum", "multi-krum", "geometric-median"]
NO_ATTACK = "none"
FLIP = 5.0


def strength_of(attack: str, sites: int, hostile: int) -> float:
    """How strong an attack is; see above. What is not named there: 1."""
    return {"sign-flip": FLIP, "backdoor": sites / max(1, hostile)}.get(attack, 1.0)


class Federation:
    """The sites of one seed. Dealt out once, and one ClientApp for all runs: what frozen layers make of a record is
    computed once, not once a run."""

    def __init__(self, config: RunConfig) -> None:
        self._sites = prepare_sites(config, Path(tempfile.mkdtemp(prefix="bench-")) / "sites")
        self._now: Mapping[str, Site] = {}
        self.app: ClientApp = make_app(lambda context: self._now[str(context.node_config["site-name"])])

    @property
    def names(self) -> list[str]:
        return [site.name for site in self._sites]

    def arm(self, config: RunConfig, threat: Threat) -> None:
        """From here on these sites are hostile and no others."""
        self._now = {site.name: site for site in armed(config, self._sites, threat)}


@functools.cache
def federation(seed: int, settings: tuple[str, ...]) -> Federation:
    """One for each seed; a robust step is the server's business."""
    return Federation(read_config(find_scenario("banking77-lora"), [*settings, f"seed={seed}"]))


def attacked(settings: Sequence[str], robust: str, attack: str, share: float, seed: int) -> tuple[RunDir, Success]:
    """One run with a share of hostile sites (0: none), and how its last adapter takes the trigger."""
    from rich.console import Console

    rule = [] if robust == "none" else [f"aggregation.robust={robust}"]
    config = read_config(find_scenario("banking77-lora"), [*settings, *rule, f"seed={seed}"])
    sites = federation(seed, tuple(settings))
    run = RunDir.create(Path(tempfile.mkdtemp(prefix="bench-")) / "run", to_toml(config))
    hostile = hostile_sites(sites.names, share, seed)
    kind = "sign-flip" if attack == NO_ATTACK else attack
    threat = Threat(kind, strength_of(kind, len(sites.names), len(hostile)), hostile, seed)
    sites.arm(config, threat)
    grid = InProcessGrid(HostileApp(sites.app, threat), sites.names)
    run_all(config, run, grid, PlainView(Console(stderr=True, quiet=True)))
    return run, success_of(run)


def measure(settings: Sequence[str], robust: str, attack: str, share: float, seeds: Sequence[int]) -> dict[str, Any]:
    """Every seed's accuracy, attack success, and the success of no attack at all."""
    started = time.monotonic()
    found: dict[str, Any] = {"accuracy": [], "success": [], "by_itself": []}
    for seed in seeds:
        run, success = attacked(settings, robust, attack, share, seed)
        values = (last(run, "accuracy", scope="global"), success.rate, success.base)
        for key, value in zip(found, values, strict=True):
            found[key].append(value)
    seconds = (time.monotonic() - started) / len(seeds)
    return {"robust": robust, "attack": attack, "share": share, **found, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attacks", default="sign-flip,backdoor")
    parser.add_argument("--shares", default="0.1,0.2,0.3")
    parser.add_argument("--robust", default=",".join(ROBUST))
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    given = parser.parse_args()
    need("../shared/data/banking77/train.csv")
    seeds, settings = [int(seed) for seed in given.seeds.split(",")], [*QUICK, *given.settings]
    attacks = [(attack, float(share)) for attack in given.attacks.split(",") for share in given.shares.split(",")]
    results, lines = [], []
    for robust in given.robust.split(","):
        for attack, share in [(NO_ATTACK, 0.0), *attacks]:
            found = measure(settings, robust, attack, share, seeds)
            results.append(found)
            cells = [spread(found[key]) for key in ("accuracy", "success", "by_itself")]
            lines.append([robust, attack, f"{share:.0%}", *cells, f"{found['seconds']:.0f}"])
            print("  ".join(lines[-1]), flush=True)
    head = ["robust", "attack", "hostile", "accuracy", "success", "by itself", "seconds a run"]
    show(f"BANKING77, 10 sites, seeds {given.seeds}", head, lines)
    write("attacks", {"rows": results, "seeds": seeds, "settings": settings, "flip": FLIP})


if __name__ == "__main__":
    main()
