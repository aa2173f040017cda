"""Fewer bytes on the way up. Codecs act on finished updates, after the noise: post-processing, it costs no epsilon."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from llmchain_fl.core.compression.bf16 import Bf16, Plain
from llmchain_fl.core.compression.codec import Codec, Name
from llmchain_fl.core.compression.quantise import INT4, INT8
from llmchain_fl.core.compression.top_k import TopK

CODECS: Mapping[Name, Codec] = MappingProxyType(
    {"none": Plain(), "bf16": Bf16(), "int8": INT8, "int4": INT4, "top-k": TopK()}
)
"""Name in the configuration -> codec. A new codec is one file, one line here and its name in ``codec.Name``."""
