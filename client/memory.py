"""What a site keeps for itself from round to round of one run: a personal factor or head, a compressor's remainder.

One file for each run and purpose, ``<state>/.memory/<run>.<purpose>.safetensors``, replaced as a whole. It holds the
values of the last two rounds in which they changed: a round that is computed again after a crash (its update was not
sealed yet) starts from what there was before it, so nothing is applied twice.

==========================================  ====================================
case                                        ``before(n)``
==========================================  ====================================
nothing kept yet                            {}
kept in rounds 3 and 5, asked for n = 6     those of round 5
... asked for n = 5 again                   those of round 3
... asked for n = 5, kept anew              round 5 is replaced, round 3 stays
a damaged file                              RunError: delete it, a personal part starts anew
==========================================  ====================================
"""

from __future__ import annotations

import re
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from llmchain_fl.adapter.value import Arrays
from llmchain_fl.atomic_file import atomic_write
from llmchain_fl.config.section import NAME
from llmchain_fl.errors import RunError, WireError


class Memory:
    """The arrays kept for ``purpose`` in the run named ``run``; ``run`` comes from the server.

    Raises:
        WireError: a name that might lead out of the folder.
    """

    def __init__(self, folder: Path, run: str, purpose: str) -> None:
        if not re.fullmatch(NAME, run):
            raise WireError("the run's name cannot stand in a path", remedy="server and site must run the same version")
        self._path = folder / ".memory" / f"{run}.{purpose}.safetensors"

    def before(self, number: int) -> Arrays:
        """What was kept in the last round before ``number``; empty if nothing was.

        Raises:
            RunError: the file is damaged.
        """
        rounds = self._read()
        earlier = [kept for kept in rounds if kept < number]
        return rounds[max(earlier)] if earlier else {}

    def keep(self, number: int, arrays: Arrays) -> None:
        """Keep ``arrays`` as what round ``number`` left; on disk when it returns."""
        rounds = {kept: value for kept, value in self._read().items() if kept < number}
        last = {max(rounds): rounds[max(rounds)]} if rounds else {}
        stored = {f"{kept}/{name}": v for kept, value in {**last, number: arrays}.items() for name, v in value.items()}
        atomic_write(self._path, save(stored))

    def _read(self) -> dict[int, Arrays]:
        if not self._path.is_file():
            return {}
        found: dict[int, Arrays] = {}
        try:
            for key, value in load_file(self._path).items():
                number, _, name = key.partition("/")
                found.setdefault(int(number), {})[name] = value
        except (OSError, ValueError, SafetensorError) as error:
            raise RunError(
                "what this site kept of the run for itself is damaged",
                remedy=f"delete {self._path.name} in the site's state folder; the personal part starts anew",
            ) from error
        return found
