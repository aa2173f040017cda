"""What a site is asked for when it is asked for scores, as a value, and out of the records that it came in."""

from __future__ import annotations

from dataclasses import dataclass

from flwr.app import RecordDict

from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.wire import arrays_of, config_of, one, some


@dataclass(frozen=True)
class ScoreTask:
    """Score the given adapter on the site's own held-out records of these stages."""

    round: int
    stages: tuple[str, ...]
    work: str
    arrays: Arrays
    run: str = ""
    receipt: str = ""
    federation: str = ""
    keeps: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Names this release."""
        return f"{self.run}/{self.round}/scores"


def read_score_task(content: RecordDict) -> ScoreTask:
    """Records -> ``ScoreTask``.

    Raises:
        WireError: anything missing or of a wrong type.
    """
    config = config_of(content)
    return ScoreTask(
        one(config, "round", int),
        some(config, "stages", str),
        one(config, "work", str),
        arrays_of(content, "arrays"),
        run=one(config, "run", str),
        receipt=one(config, "receipt", str),
        federation=one(config, "federation", str),
        keeps=some(config, "keeps", str),
    )
