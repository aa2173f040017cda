"""What a codec left out is not lost: the site remembers it and adds it to its next update (EF-SGD).

Karimireddy et al. 2019, arXiv 1901.09847, algorithm 1. In round t, with update x_t, memory e (0 at first), codec C:

    send C(x_t + e)                      e' = x_t + e - decode(C(x_t + e))

so over T rounds ``sum of what was sent = sum x_t - e_T``: nothing is dropped, only delayed, and e stays bounded where C
contracts (``Codec.error`` below 1). Memory is kept for each array by name: one that is not trained in a round (rolora)
keeps its own.

Privacy. e is a function of noised updates and of what was sent, so what is added to later updates is post-processing
and costs no epsilon, *if every update that e was made from was itself sealed and paid for*: ``client/memory.py`` sees
to that. With privacy unit ``site`` the noise is the server's, so e would hold what no noise has covered and lift what
leaves above the clip norm: refused (``budget.py``, ``client/check.py``).

============================  =====================
case                          result
============================  =====================
an array is new               zeros for it
an array has another shape    RunError, before training (``client/memory.py``)
============================  =====================
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from llmchain_fl.core.codec_spec import CodecSpec
from llmchain_fl.core.compression.codec import Blob, Draw
from llmchain_fl.core.compression.update import Floats, decode, encode

Arrays = dict[str, Floats]


def encode_with_memory(
    before: Arrays, delta: Mapping[str, Floats], spec: CodecSpec, draw: Draw
) -> tuple[dict[str, Blob], Arrays]:
    """(the blobs of a round, what they leave out).

    Args:
        before: what earlier rounds left out, of the shapes of ``delta`` (``client/memory.py``).
        delta: trained minus received, noised where the run has noise.
        spec: the run's codec.
        draw: uniforms, see ``update.encode``.

    Raises:
        TrainingError: a number that is not finite.
    """
    total = {
        name: (value + before[name] if name in before else value).astype(np.float32) for name, value in delta.items()
    }
    blobs = encode(total, spec, draw)
    sent = decode(blobs, {name: value.shape for name, value in total.items()}, spec)
    return blobs, before | {name: (value - sent[name]).astype(np.float32) for name, value in total.items()}
