"""Decoders: what they are made of (config.py), their parts, the families, and their weights in and out."""

from pmc_jax.models.attention import Cache, KeyValue, Stream
from pmc_jax.models.config import LayerKind, ModelConfig, Rope
from pmc_jax.models.decoder import Decoder
from pmc_jax.models.families import FAMILIES, find_family
from pmc_jax.models.family import Family

__all__ = [
    "FAMILIES",
    "Cache",
    "Decoder",
    "Family",
    "KeyValue",
    "LayerKind",
    "ModelConfig",
    "Rope",
    "Stream",
    "find_family",
]
