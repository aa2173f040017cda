"""A whole update <-> one blob for each array, under the same name. Where a site writes and the server reads."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.core.codec_spec import CodecSpec
from llmchain_fl.core.compression import CODECS
from llmchain_fl.core.compression.codec import LARGEST, Blob, Draw, refuse
from llmchain_fl.core.errors import TrainingError

Floats = NDArray[np.float32]
Shapes = Mapping[str, tuple[int, ...]]


def blob_size(shape: tuple[int, ...], spec: CodecSpec) -> int:
    """Bytes of one array of this shape: public, the same in every round."""
    return CODECS[spec.name].size(math.prod(shape), spec)


def encode(delta: Mapping[str, Floats], spec: CodecSpec, draw: Draw) -> dict[str, Blob]:
    """An update as bytes.

    Args:
        delta: float32 arrays of any shapes.
        spec: the run's codec.
        draw: uniforms for stochastic rounding, taken array by array in the order of the names: the same draws give
            the same bytes, in whatever order the arrays are given.

    Returns:
        name -> 1-D uint8 of ``blob_size(shape, spec)`` bytes, sorted by name.

    Raises:
        TrainingError: a number that is not finite, or above ``LARGEST`` in size.
    """
    blobs = {}
    for name in sorted(delta):
        flat = np.ascontiguousarray(delta[name], dtype=np.float32).ravel()
        if not (np.abs(flat) <= LARGEST).all():
            raise TrainingError(
                f"{name!r} of the update has a number that is not finite or above 2**127",
                remedy="lower train.lr; look at the records for what blows the loss up",
            )
        blobs[name] = CODECS[spec.name].encode(flat, spec, draw)
    return blobs


def decode(blobs: Mapping[str, object], shapes: Shapes, spec: CodecSpec, site: str = "the site") -> dict[str, Floats]:
    """Bytes as an update; whatever stands behind a name, nothing is trusted.

    Args:
        blobs: what came off the wire.
        shapes: what was asked for.
        spec: the run's codec.
        site: for the message of a refusal.

    Returns:
        Fresh float32 arrays in the order of ``shapes``; nothing larger than these is allocated but for a constant
        number of bytes for each number.

    Raises:
        AdmissionError: the whole update; ``what`` starts with the reason.

    | reply | reason |
    |---|---|
    | an array is missing | missing-name |
    | one that nobody asked for | extra-name |
    | a list, a masked array, float32 | wrong-dtype |
    | two axes, a byte too few or too many | undecodable, before anything is read |
    | a scale, step, position or filling that no site writes | undecodable |
    | the numbers are not finite | not-finite |
    """
    missing = [name for name in shapes if name not in blobs]
    if missing:
        raise refuse(site, f"sent no {missing[0]!r} ({len(missing)} of {len(shapes)} are missing)", "missing-name")
    if len(blobs) > len(shapes):
        fault = f"sent {len(blobs) - len(shapes)} more than the {len(shapes)} arrays it was asked for"
        raise refuse(site, fault, "extra-name")
    return {name: _decoded(blobs[name], shape, spec, f"{name!r} of {site}") for name, shape in shapes.items()}


def _decoded(blob: object, shape: tuple[int, ...], spec: CodecSpec, who: str) -> Floats:
    if type(blob) is not np.ndarray or blob.dtype != np.uint8:
        raise refuse(who, "is not a plain array of bytes (uint8)", "wrong-dtype")
    wanted = blob_size(shape, spec)
    if blob.shape != (wanted,):
        raise refuse(who, f"has shape {blob.shape}; {spec.name} of {shape} takes {wanted} bytes")
    x = CODECS[spec.name].decode(np.ascontiguousarray(blob), math.prod(shape), spec, who)
    if not np.isfinite(x).all():
        raise refuse(who, "has NaN or infinity in it", "not-finite")
    return x.reshape(shape)
