"""RoPE scaling of a GGUF file, in the words of a Hugging Face `config.json`."""

import math
from typing import Any

import numpy as np

from pmc_jax.errors import UserError
from pmc_jax.models.gguf_file import Fields

FREQUENCY_FACTORS = "rope_freqs.weight"
LONG_FACTORS = {"long_factor": "rope_factors_long.weight", "short_factor": "rope_factors_short.weight"}
TENSORS = (FREQUENCY_FACTORS, *LONG_FACTORS.values())  # which hold no parameters
PUBLISHED_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
YARN = {
    "attention_factor": "rope.scaling.yarn_attn_factor",
    "beta_fast": "rope.scaling.yarn_beta_fast",
    "beta_slow": "rope.scaling.yarn_beta_slow",
}


def read_scaling(fields: Fields, dim: int, theta: float) -> dict[str, Any] | None:
    """`rope_scaling` by the metadata, or by the factors that the file stores.

    Args:
        fields: of the file.
        dim: entries of a head that are rotated.
        theta: base of the wavelengths.

    Returns:
        linear, yarn, longrope or llama3; None = no scaling.

    Raises:
        UserError: another kind, or factors that are of none.
    """
    kind = fields.get("rope.scaling.type", "none")
    if kind not in ("none", "linear", "yarn", "longrope"):
        raise UserError(
            f"{fields.file}: RoPE scaling {kind!r} is not supported as GGUF; supported: linear, yarn, longrope, llama3"
        )
    if any(name in fields.tensors for name in LONG_FACTORS.values()):
        return read_longrope(fields, dim)
    if kind == "longrope":
        raise UserError(f"{fields.file}: RoPE scaling 'longrope' needs the tensors {', '.join(LONG_FACTORS.values())}")
    if kind == "yarn":
        return read_yarn(fields)
    factor = fields.number("rope.scaling.factor", fields.number("rope.scale_linear", 1.0))
    if FREQUENCY_FACTORS in fields.tensors:
        factors = stored_factors(fields, FREQUENCY_FACTORS, dim)
        scaling = None if factors is None else fit_llama3(factors, theta)
        if scaling is None or factor != 1.0:
            raise UserError(f"{fields.file}: the factors in {FREQUENCY_FACTORS} are not those of llama3's RoPE scaling")
        return scaling
    return None if factor == 1.0 else {"rope_type": "linear", "factor": factor}


def stored_factors(fields: Fields, name: str, dim: int) -> np.ndarray | None:
    """The factors in a tensor, float64; None when there is not one for each of the `dim / 2` wavelengths."""
    stored = fields.tensors.get(name)
    return stored[(slice(None),)].astype(np.float64) if stored and stored.shape == (dim // 2,) else None


def read_yarn(fields: Fields) -> dict[str, Any]:
    """YaRN's scaling."""
    for key, usual in (("rope.scaling.yarn_ext_factor", 1.0), ("rope.scaling.yarn_log_multiplier", 0.0)):
        if fields.get(key, usual) != usual:
            raise UserError(f"{fields.file}: {fields.key(key)} is not {usual}; that is not supported")
    length = fields.number("rope.scaling.original_context_length", fields.number("context_length"))
    scaling = {"rope_type": "yarn", "factor": float(fields.number("rope.scaling.factor"))}
    stated = {name: float(fields.number(key)) for name, key in YARN.items() if fields.get(key) is not None}
    return scaling | {"original_max_position_embeddings": length} | stated


def read_longrope(fields: Fields, dim: int) -> dict[str, Any]:
    """LongRoPE's scaling: one factor for each wavelength in short rows, and one in long rows."""
    scaling: dict[str, Any] = {"rope_type": "longrope"}
    for key, name in LONG_FACTORS.items():
        factors = stored_factors(fields, name, dim)
        if factors is None:
            raise UserError(f"{fields.file}: {name} is missing, or is not {dim // 2} numbers")
        scaling[key] = [float(str(np.float32(x))) for x in factors]
    length = fields.number("context_length")
    original = fields.number("rope.scaling.original_context_length", length)
    usual = math.sqrt(1 + math.log(length / original) / math.log(original)) if length > original else 1.0
    stated = fields.number("rope.scaling.attn_factor", usual)
    return scaling | ({} if math.isclose(stated, usual, rel_tol=1e-6) else {"attention_factor": float(stated)})


def llama3_factors(wavelengths: np.ndarray, factor: float, low: float, high: float, length: int) -> np.ndarray:
    """How much longer llama3's scaling makes each wavelength: 1 below length / high, `factor` above length / low."""
    smooth = np.clip((length / wavelengths - low) / (high - low), 0.0, 1.0)
    return 1.0 / ((1.0 - smooth) / factor + smooth)


def fit_llama3(factors: np.ndarray, theta: float) -> dict[str, Any] | None:
    """The settings of llama3's scaling that give these factors; None when none do.

    llama.cpp stores the factors and not the settings. The published settings are tried first. Otherwise low_freq_factor
    is set to 1, as (low, high, length) and (1, high / low, length / low) are the same; the two others follow from
    1 / factor being linear in 1 / wavelength between the bands.
    """
    wavelengths = 2 * np.pi * theta ** (np.arange(len(factors)) / len(factors))
    factor = float(str(np.float32(factors.max())))
    candidates = [PUBLISHED_LLAMA3]
    blended = (factors > 1 + 1e-5) & (factors < factor * (1 - 1e-5))
    if blended.sum() >= 2:
        smooth = (1 / factors - 1 / factor) / (1 - 1 / factor)
        slope, start = np.polyfit(1 / wavelengths[blended], smooth[blended], 1)
        if start < 0 < slope:
            high, length = round(1 - 1 / start, 4), round(-slope / start)
            candidates.append(dict(zip(PUBLISHED_LLAMA3, (1.0, high, length))))
    for settings in candidates:
        expected = llama3_factors(wavelengths, factor, *settings.values())
        if np.allclose(factors, expected, rtol=1e-4):
            return {"rope_type": "llama3", "factor": factor} | settings
    return None
