"""Configuration -> the parts of a run, composed; takes up the last saved round if the run directory has one."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable

from llmchain_fl.config.schema import RunConfig
from llmchain_fl.config.write import to_toml
from llmchain_fl.core.errors import ConfigError, RunError
from llmchain_fl.core.methods import CLOSED_FORM
from llmchain_fl.data.stages import check_stages, public_labels
from llmchain_fl.guards.server_guards import ServerGuards
from llmchain_fl.planning.scratch import check_scratch
from llmchain_fl.planning.work import guard_specs, work_from
from llmchain_fl.progress import Progress
from llmchain_fl.run_dir import RunDir
from server.central import CentralPrivacy
from server.changes import accept, note_noise
from server.checkpoint import Stateful, load_state, read_state, save_state
from server.further_noise import further_plan
from server.loop import Loop, Parts
from server.masked_round import MaskedRounds
from server.parts import closed_form_rule, make_quarantine, make_robust, make_rule, start_arrays
from server.privacy_book import PrivacyBook, make_plan
from server.references import References
from server.scoring import Opening, Scorer
from server.secure_sums import SecureSums
from server.state import RunState
from server.strategy import FederatedLora


def build(
    config: RunConfig, run: RunDir, progress: Progress, *, extension: bool = False, opening: Opening | None = None
) -> Loop:
    """All parts of a run. With ``extension``, ``config`` goes further than the one so far, from the last saved round.

    Raises:
        LlmchainError: anything that would fail later and can be seen now.
    """
    saved, labels = read_state(run.state), public_labels(config)
    if saved is None and extension:
        raise RunError(f"{run.path} has not begun: there is nothing to extend", remedy="play it first (--resume)")
    check_stages(config, list(labels))
    check_scratch(config)
    state, quarantine = RunState(uuid.uuid4().hex), make_quarantine(config)
    rule = make_rule(config, state)
    guards, book = ServerGuards(guard_specs(config)), PrivacyBook(config, None if saved else make_plan(config))
    parts: dict[str, Stateful] = {"run": state, "rule": rule, "guards": guards, "privacy": book, "sites": quarantine}
    if saved is None:
        rule.load_state({})
        state.settings, state.labels = config.model_dump(), labels
    else:
        load_state(saved, {"run": state})
        grown, changed = len(labels) > len(state.labels), len(state.changes)
        accept(config, labels, state, extension=extension)
        later = {"run", "rule"} if config.train.method == CLOSED_FORM else {"run"}
        load_state(saved, {name: part for name, part in parts.items() if name not in later})
    if extension:
        book.go_on_with(further_plan(config, book, list(state.nodes), state.round, state.ended))
        note_noise(state, book.plan)
    work = work_from(config, labels, rule.trained, book.plan)
    if saved and grown and work.task.head_size:
        raise ConfigError(["task.labels: a trained head has one output a label; the run so far has fewer"])
    central = _central(config, book)
    if central is not None:
        parts["clip"] = central
        load_state(saved or {"clip": central.state()}, {"clip": central})
    scorer = Scorer(config, work, list(labels), opening)
    references = parts["references"] = References(scorer, work.task)
    if saved:
        load_state(saved, {"references": references})
    start = start_arrays(config, work, rule, scorer)
    if config.train.method == CLOSED_FORM:
        rule = parts["rule"] = closed_form_rule(work, scorer, start)
        load_state(saved or {"rule": {}}, {"rule": rule})
    if saved is None:
        state.current = state.serving = start
    elif not extension and len(state.changes) > changed:
        run.write_settings(to_toml(config), state.changes)
    run.truncate_after(state.round if state.round else -1)
    strategy = FederatedLora(config, work, rule, state, central, make_robust(config.aggregation))

    def save() -> None:
        save_state(run.state, state.round, parts)

    masked = _masked(strategy, save)
    if masked is not None:
        parts["sums"] = masked.sums
        if saved:
            load_state(saved, {"sums": masked.sums})
    made = Parts(state, strategy, guards, scorer, book, quarantine, references, masked, parts, start)
    return Loop(config, work, made, run, progress)


def _masked(strategy: FederatedLora, save: Callable[[], None]) -> MaskedRounds | None:
    """The rounds of a run whose updates are masked."""
    if strategy.work.secure is None:
        return None

    def size_of(number: int) -> int:
        return sum(math.prod(shape) for shape in strategy.sent(number)[0].values())

    sums = SecureSums(strategy.work, lambda: strategy.state.run, size_of, strategy.reply_seconds)
    return MaskedRounds(sums, strategy, save)


def _central(config: RunConfig, book: PrivacyBook) -> CentralPrivacy | None:
    """The server's own noise, with privacy unit ``site``."""
    if book.plan is None or book.plan.unit != "site" or book.plan.is_shared:
        return None
    return CentralPrivacy(book.plan, config.privacy.clip_quantile)
