"""What ideal noise looks like after a codec: the yardstick for a run whose updates travel compressed."""

from __future__ import annotations

import numpy as np

from client.rounds import stays
from llmchain_fl.core.compression.update import decode, encode
from simulations.audit.own_run import Setting
from simulations.audit.practice import Floats

DRAWS = 24


def ideal_energies(setting: Setting, std: float) -> Floats:
    """Root mean square of DRAWS ideal noise vectors after the codec, over that before it."""
    work = setting.work
    resident = setting.resident()
    shapes = {name: resident.shapes[name] for name in resident.trained_names if not stays(name, setting.keeps)}
    draw = np.random.default_rng()
    size = sum(int(np.prod(shape)) for shape in shapes.values())
    energies = []
    for _ in range(DRAWS):
        ideal = {name: draw.normal(0, std, shape).astype(np.float32) for name, shape in shapes.items()}
        sent = decode(encode(ideal, work.codec, draw.random), shapes, work.codec)
        energy = sum(float(np.square(value.astype(np.float64)).sum()) for value in sent.values())
        energies.append((energy / size) ** 0.5 / std)
    return np.array(energies)
