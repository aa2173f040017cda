"""Fewer bytes on the way up. Codecs act on finished updates, after the noise: post-processing, it costs no epsilon."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmchain_fl.core.plugins import Named

if TYPE_CHECKING:
    from llmchain_fl.core.compression.codec import Codec

CODECS: Named[Codec] = Named(
    {
        "none": "llmchain_fl.core.compression.bf16:PLAIN",
        "bf16": "llmchain_fl.core.compression.bf16:BF16",
        "int8": "llmchain_fl.core.compression.quantise:INT8",
        "int4": "llmchain_fl.core.compression.quantise:INT4",
        "top-k": "llmchain_fl.core.compression.top_k:TOP_K",
    }
)
"""Name in the configuration -> codec. A new codec is one file, one line here and its name in ``codec_spec.Name``."""
