"""A run goes further than it was planned: more stages, more rounds, other sites. One lineage, one ledger, one report.

==============================================  =====================================================================
what                                            where
==============================================  =====================================================================
may the configuration follow the one so far?    ``llmchain_fl/config/changes.py``
the noise of the rounds to come                 ``server/further_noise.py``
the end of the stage that was the last one      guards are told of it when the next stage begins (``server/loop.py``)
==============================================  =====================================================================

Nothing is played here: the run goes on as after a crash.
"""

from __future__ import annotations

from llmchain_fl.config.schema import RunConfig
from llmchain_fl.config.write import to_toml
from llmchain_fl.progress import Silent
from llmchain_fl.run_dir import RunDir
from server.build import build
from server.recorder import ENDED
from server.scoring import Opening
from server.state import last_state


class Extension:
    """Checked when it is made, entered by ``commit``; until then nothing has changed.

    Args:
        config: the configuration that the run is to go on with.
        run: its directory; the caller holds its lock.
        opening: more rows of round 0 for the stages that are new.

    Raises:
        LlmchainError: it is no extension of this run, or its budget does not pay for it.
    """

    def __init__(self, config: RunConfig, run: RunDir, opening: Opening | None = None) -> None:
        before = last_state(run.state)
        known = {stage["name"] for stage in before.settings["stage"]} if before else set()
        self._config, self._run = config, run
        self._new = [stage.name for stage in config.stage if stage.name not in known]
        self._loop = build(config, run, Silent(), extension=True, opening=opening)

    def commit(self) -> None:
        """Enter it: rows of the new stages, settings, state. Broken off in between, it can be made again."""
        parts, state = self._loop.parts, self._loop.parts.state
        if state.round and self._new:
            self._loop.recorder.extended(self._new, parts.start, parts.strategy.rounds[state.round])
        self._run.drop(ENDED)
        self._run.write_settings(to_toml(self._config), state.changes)
        self._loop.save()
        self._run.write_privacy(parts.book.as_json(state.nodes))
