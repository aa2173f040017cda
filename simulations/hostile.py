"""Hostile sites in a simulation, for research: what a robust rule is worth is measured against these.

A hostile site trains like an honest one and twists its update before it is sent: a wrapper around the ClientApp of the
honest sites, in the same process. It knows the protocol and its own update; hostile sites do not see each other's or
anybody else's. All but ``malformed`` pass admission wherever no norm bound stops them.

==============  ==========================================================================  ===========================
attack          the update that is sent (honest: delta; s = strength)                       source
==============  ==========================================================================  ===========================
``sign-flip``   -s delta                                                                    Li et al. 2019, 1811.03761
``scale``       s delta                                                                     Blanchard et al. 2017
``noise``       Gaussian of the norm s |delta|, in expectation of the square                same, 1703.02757
``backdoor``    s delta, trained on poisoned records too (``backdoor.py``); s = sites /     Bagdasaryan et al. 2018,
                hostile sites replaces the model                                            1807.00459
``free-rider``  zeros                                                                       Lin et al. 2019, 1911.12560
``rotate``      the same product in rotated factors: (B Q, Q^T A) for B A; s is not used    any rule in factor space
``malformed``   what no honest site sends, another kind in each round (``malformed.py``)
==============  ==========================================================================  ===========================

A site that declines (a budget, a policy) is left to decline: there is nothing to twist.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp

from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.compression.codec import LARGEST
from llmchain_fl.core.compression.update import decode, encode
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.messages import TrainTask
from llmchain_fl.core.wire import read_train_task, write_update
from llmchain_fl.core.work import WorkSpec
from llmchain_fl.replies import Update, read_reply
from simulations.malformed import MALFORMED

Attack = Callable[[Arrays, Arrays, float, np.random.Generator], Arrays]
"""(honest delta, arrays the site was handed, strength, randomness) -> the delta that is sent."""
BACKDOOR, MALFORM = "backdoor", "malformed"


def sign_flip(delta: Arrays, handed: Arrays, strength: float, draw: np.random.Generator) -> Arrays:
    """``-s delta``: away from where the records point."""
    return scale(delta, handed, -strength, draw)


def scale(delta: Arrays, _handed: Arrays, strength: float, _draw: np.random.Generator) -> Arrays:
    """``s delta``, float32; what no longer fits float32 becomes infinite, and is refused as that."""
    with np.errstate(over="ignore"):
        return {name: (value * np.float32(strength)).astype(np.float32) for name, value in delta.items()}


def noise(delta: Arrays, _handed: Arrays, strength: float, draw: np.random.Generator) -> Arrays:
    """P independent numbers of N(0, (s |delta|)^2 / P): E |sent|^2 = (s |delta|)^2."""
    size = sum(value.size for value in delta.values())
    norm = math.sqrt(sum(float(np.square(value, dtype=np.float64).sum()) for value in delta.values()))
    std = strength * norm / math.sqrt(size)
    return {name: (std * draw.standard_normal(value.shape)).astype(np.float32) for name, value in delta.items()}


def free_rider(delta: Arrays, _handed: Arrays, _strength: float, _draw: np.random.Generator) -> Arrays:
    """Zeros: takes the model and gives nothing."""
    return {name: np.zeros_like(value) for name, value in delta.items()}


def rotate(delta: Arrays, handed: Arrays, _strength: float, draw: np.random.Generator) -> Arrays:
    """``(B Q, Q^T A)`` for each module whose two factors are sent, Q orthogonal and uniform; the same B A to 1e-6.

    Where one factor alone is sent its partner is frozen, so that there is no other pair of the same product.
    """
    sent = dict(delta)
    for module in [name.removesuffix(".lora_B") for name in delta if name.endswith(".lora_B")]:
        a, b = f"{module}.lora_A", f"{module}.lora_B"
        if a in delta:
            full = {name: handed[name].astype(np.float64) + delta[name] for name in (a, b)}
            turn, r = np.linalg.qr(draw.standard_normal((full[a].shape[0],) * 2))
            turn *= np.sign(np.diag(r))
            turned = {b: full[b] @ turn, a: turn.T @ full[a]}
            sent |= {name: (turned[name] - handed[name]).astype(np.float32) for name in (a, b)}
    return sent


ATTACKS: Mapping[str, Attack] = {
    "sign-flip": sign_flip,
    "scale": scale,
    "noise": noise,
    BACKDOOR: scale,
    "free-rider": free_rider,
    "rotate": rotate,
}
"""Attacks that are made of the honest update; ``malformed`` is not one of them."""


@dataclass(frozen=True)
class Threat:
    """Who is hostile, and how.

    Raises:
        ConfigError: an unknown attack, or a strength that is not finite and above 0.
    """

    attack: str
    strength: float
    sites: frozenset[str]
    seed: int

    def __post_init__(self) -> None:
        known = (*ATTACKS, MALFORM)
        faults = [] if self.attack in known else [f"there is no attack {self.attack!r}; known are {', '.join(known)}"]
        if not (math.isfinite(self.strength) and self.strength > 0):
            faults.append(f"an attack cannot have the strength {self.strength}; it must be finite and above 0")
        if faults:
            raise ConfigError(faults)

    def content(self, site: str, task: TrainTask, honest: Update) -> RecordDict:
        """What ``site`` sends for its honest update; a function of seed, site and round.

        What travels in small is unpacked, twisted and packed again: numbers that the codec cannot write become zeros.
        """
        digest = hashlib.sha256(f"{self.seed}/{site}/{task.round}".encode()).digest()
        draw, codec = np.random.default_rng(int.from_bytes(digest[:16])), WorkSpec.from_json(task.work).codec
        delta = {name: value for name, value in honest.arrays.items() if isinstance(value, np.ndarray)}
        if codec.name != "none":
            delta = dict(decode(delta, {name: task.arrays[name].shape for name in delta}, codec, site))
        if self.attack == MALFORM:
            return MALFORMED[self.kind(site, task.round)].content(honest.round, delta)
        twisted = ATTACKS[self.attack](delta, task.arrays, self.strength, draw)
        if codec.name == "none":
            return write_update(honest.round, twisted, honest.receipt)
        small = {name: np.where(np.abs(v) <= LARGEST, v, 0).astype(np.float32) for name, v in twisted.items()}
        return write_update(honest.round, encode(small, codec, draw.random), honest.receipt)

    def kind(self, site: str, number: int) -> str:
        """The malformed reply of ``site`` in round ``number``: all kinds in turn, each site at another one."""
        kinds, place = sorted(MALFORMED), sorted(self.sites).index(site)
        return kinds[(number - 1 + place) % len(kinds)]


def hostile_sites(names: Collection[str], share: float, seed: int) -> frozenset[str]:
    """``share`` of the sites, rounded to the nearest number (.5 up); a function of seed and names.

    Raises:
        ConfigError: a share outside 0 to 0.5, or one above 0 that makes no site hostile.

    ==========================  =======================================
    share of 10 sites           hostile
    ==========================  =======================================
    0                           none
    0.1, 0.3, 0.5               1, 3, 5; those of 0.1 are among the 3
    0.04                        ConfigError: a run without the attack
    ==========================  =======================================
    """
    if not 0 <= share <= 0.5:
        raise ConfigError([f"the share of hostile sites is {share}; at least 0 and at most 0.5"])
    number = int(share * len(names) + 0.5)
    if share and not number:
        raise ConfigError([f"{share:g} of {len(names)} sites is no site at all; raise the share or the sites"])
    mixed = sorted(names)
    random.Random(f"{seed}/hostile").shuffle(mixed)
    return frozenset(mixed[:number])


class HostileApp(ClientApp):
    """The ClientApp of all sites, some of them hostile.

    Args:
        honest: what every site runs.
        threat: who twists its updates, and how.
        name_of: the name of a node's site; by default what the in-process grid says.
    """

    def __init__(self, honest: ClientApp, threat: Threat, name_of: Callable[[Context], str] | None = None) -> None:
        super().__init__()
        self._honest, self._threat = honest, threat
        self._name_of = name_of or (lambda context: str(context.node_config["site-name"]))

    def __call__(self, message: Message, context: Context) -> Message:
        """The honest reply; of a hostile site that was asked to train, what it makes of it."""
        reply = self._honest(message, context)
        site = self._name_of(context)
        training = message.metadata.message_type.partition(".")[0] == MessageType.TRAIN
        if not training or site not in self._threat.sites or reply.has_error():
            return reply
        answer = read_reply(reply.content)
        if not isinstance(answer, Update):
            return reply
        return Message(self._threat.content(site, read_train_task(message.content), answer), reply_to=message)
