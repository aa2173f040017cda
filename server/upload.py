"""How many bytes a round takes on the way up, known before round 1."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from llmchain_fl.aggregation.rule import LORA_A, LORA_B, Rule, names_of, sent_names
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.work import WorkSpec
from llmchain_fl.planning.budget import budget, link_faults, upload_line
from llmchain_fl.planning.budget import faults as codec_faults
from llmchain_fl.planning.work import codec_from

Shapes = dict[str, tuple[int, ...]]


def sent_shapes(rule: Rule, arrays: Mapping[str, np.ndarray], number: int) -> Shapes:
    """Name -> shape of what a site of the global rank sends in round ``number``."""
    return {name: arrays[name].shape for name in sent_names(rule, arrays, number)}


def upload_of(config: RunConfig, work: WorkSpec, rule: Rule, arrays: Mapping[str, np.ndarray]) -> str:
    """The byte budget of a run in one line: of its largest round, at the global rank."""
    size = max(budget(sent_shapes(rule, arrays, number), work.codec) for number in (1, 2))
    endings, of = ((LORA_A, LORA_B), "both factors") if rule.factors else (rule.trained, "what is trained")
    plain = sum(4 * arrays[name].size for name in names_of(endings, arrays))
    return upload_line(size, plain, config.compression.link_kbit, of)


def upload_faults(config: RunConfig, rule: Rule, arrays: Mapping[str, np.ndarray]) -> list[str]:
    """What compression may not be combined with, and a link that cannot carry a round."""
    link, codec = config.compression, codec_from(config)
    unit = config.privacy.unit if config.privacy.enabled else ""
    wrong = codec_faults(codec, rule=rule.name, steady=rule.steady, unit=unit)
    kinds = {f"{word} round": sent_shapes(rule, arrays, number) for number, word in ((1, "an odd"), (2, "an even"))}
    if kinds["an odd round"] == kinds["an even round"]:
        kinds = {"a round": kinds["an odd round"]}
    return wrong + link_faults(kinds, codec, steady=rule.steady, link_kbit=link.link_kbit, max_seconds=link.max_seconds)
