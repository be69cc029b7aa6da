"""RoPE settings of a Hugging Face `config.json` of either style (transformers 4 or 5)."""

import math
from collections.abc import Mapping
from typing import Any

from pmc_jax.errors import UserError
from pmc_jax.models.config import FULL, ROPE_TYPES, SLIDING, Rope

OLD_NAMES = {"su": "longrope"}  # of Phi-3's first files


def read_rope(
    raw: Mapping[str, Any], head_dim: int, default_partial: float = 1.0, default_theta: float = 10000.0
) -> Rope:
    """One Rope for all layers.

    Args:
        raw: `config.json`: v5 `rope_parameters`, or v4 `rope_theta`, `rope_scaling` and `partial_rotary_factor`.
        head_dim: H.
        default_partial: share of a head that is rotated, where the config does not say.
        default_theta: base of the wavelengths, where the config does not say.

    Raises:
        UserError: an unknown type, or a factor that is missing.
    """
    scaling = dict(raw.get("rope_scaling") or {}) | dict(raw.get("rope_parameters") or {})
    scaling.setdefault("rope_theta", raw.get("rope_theta") or default_theta)
    scaling.setdefault("partial_rotary_factor", raw.get("partial_rotary_factor") or default_partial)
    return _make_rope(raw, scaling, head_dim)


def read_ropes(raw: Mapping[str, Any], head_dim: int, full_theta: float, sliding_theta: float) -> dict[str, Rope]:
    """The Rope of full and that of sliding layers; a v4 `rope_scaling` is that of full layers alone.

    Args:
        raw: `config.json`, where v5 has `rope_parameters` by kind of layer.
        head_dim: H.
        full_theta: base of the wavelengths in full layers, where the config does not say.
        sliding_theta: the same in sliding layers.
    """
    given = raw.get("rope_parameters") or {FULL: dict(raw.get("rope_scaling") or {})}
    full, sliding = dict(given.get(FULL) or {}), dict(given.get(SLIDING) or {})
    full.setdefault("rope_theta", raw.get("rope_theta") or full_theta)
    sliding.setdefault("rope_theta", sliding_theta)
    return {FULL: _make_rope(raw, full, head_dim), SLIDING: _make_rope(raw, sliding, head_dim)}


def _make_rope(raw: Mapping[str, Any], scaling: Mapping[str, Any], head_dim: int) -> Rope:
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    kind = OLD_NAMES.get(kind, kind)
    if kind not in ROPE_TYPES:
        raise UserError(f"config.json: rope type {kind!r} is not supported; supported: {', '.join(ROPE_TYPES)}")
    max_positions = raw.get("max_position_embeddings") or 2048
    original = (
        raw.get("original_max_position_embeddings") or scaling.get("original_max_position_embeddings") or max_positions
    )
    factor = scaling.get("factor")
    if kind in ("yarn", "longrope"):
        factor = factor or max_positions / original
    if kind != "default" and not factor:
        raise UserError(f"config.json: rope type {kind!r} needs a 'factor'")
    dim = int(head_dim * (scaling.get("partial_rotary_factor") or 1.0))
    return Rope(
        type=kind,
        dim=dim,
        theta=float(scaling["rope_theta"]),
        max_positions=max_positions,
        factor=float(factor or 1.0),
        low_freq_factor=float(scaling.get("low_freq_factor") or 1.0),
        high_freq_factor=float(scaling.get("high_freq_factor") or 4.0),
        original_max_positions=original,
        attention_factor=_attention_factor(kind, float(factor or 1.0), original, scaling),
        beta_fast=float(scaling.get("beta_fast") or 32.0),
        beta_slow=float(scaling.get("beta_slow") or 1.0),
        truncate=scaling.get("truncate", True),
        **(_long_factors(scaling, dim // 2) if kind == "longrope" else {}),
    )


def _long_factors(scaling: Mapping[str, Any], pairs: int) -> dict[str, tuple[float, ...]]:
    factors = {}
    for key in ("short_factor", "long_factor"):
        values = scaling.get(key)
        if not isinstance(values, list) or len(values) != pairs:
            raise UserError(f"config.json: rope type 'longrope' needs a {key!r} of {pairs} numbers")
        factors[f"{key}s"] = tuple(map(float, values))
    return factors


def _attention_factor(kind: str, factor: float, original: int, scaling: Mapping[str, Any]) -> float:
    """What cos and sin are multiplied with: as given, or by the papers of YaRN and LongRoPE."""
    if kind not in ("yarn", "longrope"):
        return 1.0
    if scaling.get("attention_factor") is not None:
        return float(scaling["attention_factor"])
    if factor <= 1:
        return 1.0
    if kind == "longrope":
        return math.sqrt(1 + math.log(factor) / math.log(original))
    whole, part = scaling.get("mscale"), scaling.get("mscale_all_dim")
    if whole and part:
        return (0.1 * whole * math.log(factor) + 1) / (0.1 * part * math.log(factor) + 1)
    return 0.1 * math.log(factor) + 1
