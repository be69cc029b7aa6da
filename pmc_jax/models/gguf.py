"""A GGUF file of a Llama, read as a Hugging Face checkpoint: config, tensors by Hugging Face name, tokenizer."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pmc_jax.errors import UserError, first_line
from pmc_jax.models import gguf_tokenizer
from pmc_jax.models.gguf_file import Header, StoredTensor, read_header

# llama.cpp's names of the tensors -> Hugging Face's, weights and biases alike.
TENSORS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
ROPE_FACTORS = "rope_freqs.weight"
ROPE_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


class GGUFCheckpoint(NamedTuple):
    """What a folder's files would say: config.json, generation_config.json, the tensors by name, the tokenizer."""

    raw_config: dict[str, Any]
    generation_config: dict[str, Any]
    tensors: dict[str, StoredTensor]
    tokenizer: Any


def read(path: str | Path) -> GGUFCheckpoint:
    """Read a GGUF file of a Llama, all but the numbers in its tensors.

    Args:
        path: the file, of any tensor types that the library `gguf` dequantises.

    Returns:
        Config, generation config, tensors and tokenizer, in Hugging Face's words.

    Raises:
        UserError: in one line, for a missing library, a file that is no GGUF or is cut, another architecture, a
            tensor type, RoPE scaling or tokenizer that is not supported.
    """
    file = Path(path)
    header = read_header(file)
    check_supported(file, header.metadata)
    config = read_config(file, header)
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    tensors = {}
    for name, tensor in header.tensors.items():
        name = hugging_face_name(name)
        module = name.rpartition(".")[0].rpartition(".")[2]
        tensors[name] = tensor._replace(heads=heads.get(module, 0))
    tensors.pop(ROPE_FACTORS, None)
    tokenizer = make_tokenizer(file, header.metadata)
    if len(tokenizer) > config["vocab_size"]:
        raise UserError(f"{file}: has {len(tokenizer)} tokens and {config['vocab_size']} embeddings")
    ids = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if key in config}
    return GGUFCheckpoint(config, ids, tensors, tokenizer)


def make_tokenizer(file: Path, metadata: dict[str, Any]) -> Any:
    """The file's tokenizer; UserError, in one line, when it cannot be built."""
    try:
        return gguf_tokenizer.make_tokenizer(file, metadata)
    except UserError:
        raise
    except Exception as error:  # the library raises plain exceptions for merges and tokens that do not fit
        raise UserError(f"{file}: its tokenizer cannot be built: {first_line(error)}") from None


def hugging_face_name(name: str) -> str:
    """Hugging Face's name of a tensor; one that no Llama has keeps its own, and is then refused by it."""
    layer = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    if layer and layer[2] in LAYER_TENSORS:
        return f"model.layers.{layer[1]}.{LAYER_TENSORS[layer[2]]}.{layer[3]}"
    stem, _, part = name.rpartition(".")
    return f"{TENSORS[stem]}.{part}" if stem in TENSORS else name


def check_supported(file: Path, metadata: dict[str, Any]) -> None:
    """UserError for what is not a whole, plain Llama."""
    architecture = metadata.get("general.architecture")
    if architecture != "llama":
        raise UserError(f"{file}: architecture {architecture!r} is not supported as GGUF; supported: 'llama'")
    if metadata.get("split.count", 0) > 1:
        raise UserError(
            f"{file}: is one of {metadata['split.count']} parts; join them with: llama-gguf-split --merge FIRST OUTPUT"
        )
    if metadata.get("llama.expert_count", 0):
        raise UserError(f"{file}: a mixture of {metadata['llama.expert_count']} experts is not supported")


def read_config(file: Path, header: Header) -> dict[str, Any]:
    """The config.json of the file's Llama."""
    metadata, tensors = header
    keys = {
        "hidden_size": "embedding_length",
        "intermediate_size": "feed_forward_length",
        "num_hidden_layers": "block_count",
        "num_attention_heads": "attention.head_count",
        "max_position_embeddings": "context_length",
        "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    }
    config = {name: read_number(file, metadata, f"llama.{key}") for name, key in keys.items()}
    heads = config["num_attention_heads"]
    kv_heads = read_number(file, metadata, "llama.attention.head_count_kv", heads)
    head_dim = read_number(file, metadata, "llama.attention.key_length", config["hidden_size"] // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if metadata.get(f"llama.{key}", head_dim) != head_dim:
            raise UserError(f"{file}: llama.{key} is not the width of a head, {head_dim}; that is not supported")
    if "token_embd.weight" not in tensors:
        raise UserError(f"{file}: has no tensor token_embd.weight")
    theta = float(read_number(file, metadata, "llama.rope.freq_base", 10000.0))
    names = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
    ids = {name: metadata.get(f"tokenizer.ggml.{key}_token_id") for name, key in names.items()}
    ends = {ids["eos_token_id"], *(metadata.get(f"tokenizer.ggml.{key}_token_id") for key in ("eot", "eom"))} - {None}
    ids["eos_token_id"] = sorted(ends) if len(ends) > 1 else next(iter(ends), None)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": tensors["token_embd.weight"].shape[0],
        **config,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "hidden_act": "silu",
        "rope_theta": theta,
        "rope_scaling": read_rope_scaling(file, header, head_dim, theta),
        "tie_word_embeddings": "output.weight" not in tensors,
        "attention_bias": "blk.0.attn_q.bias" in tensors,
        "mlp_bias": "blk.0.ffn_gate.bias" in tensors,
        **{name: value for name, value in ids.items() if value is not None},
    }


def read_number(file: Path, metadata: dict[str, Any], key: str, default: Any = None) -> Any:
    """A number above 0, `default` where the file does not state it; UserError for anything else."""
    value = metadata.get(key, default)
    if value is None:
        raise UserError(f"{file}: its metadata has no {key!r}")
    if isinstance(value, list):
        raise UserError(f"{file}: {key} differs between layers, which is not supported")
    if isinstance(value, (str, bool)) or not 0 < value < float("inf"):
        raise UserError(f"{file}: {key} is {value!r}; must be a number above 0")
    return value


def read_rope_scaling(file: Path, header: Header, head_dim: int, theta: float) -> dict[str, Any] | None:
    """`rope_scaling` in Hugging Face's words: linear by the metadata, llama3 by the factors that are stored for it."""
    metadata, tensors = header
    kind = metadata.get("llama.rope.scaling.type", "none")
    older = read_number(file, metadata, "llama.rope.scale_linear", 1.0)
    factor = read_number(file, metadata, "llama.rope.scaling.factor", older)
    if kind not in ("none", "linear"):
        raise UserError(f"{file}: RoPE scaling {kind!r} is not supported as GGUF; supported: linear, llama3")
    if ROPE_FACTORS in tensors:
        stored = tensors[ROPE_FACTORS]
        factors = stored[(slice(None),)].astype(np.float64) if stored.shape == (head_dim // 2,) else None
        scaling = None if factors is None else fit_llama3(factors, theta)
        if scaling is None or factor != 1.0:
            raise UserError(f"{file}: the factors in {ROPE_FACTORS} are not those of llama3's RoPE scaling")
        return scaling
    return None if factor == 1.0 else {"rope_type": "linear", "factor": factor}


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
    candidates = [ROPE_LLAMA3]
    blended = (factors > 1 + 1e-5) & (factors < factor * (1 - 1e-5))
    if blended.sum() >= 2:
        smooth = (1 / factors - 1 / factor) / (1 - 1 / factor)
        slope, start = np.polyfit(1 / wavelengths[blended], smooth[blended], 1)
        if start < 0 < slope:
            high, length = round(1 - 1 / start, 4), round(-slope / start)
            candidates.append(dict(zip(ROPE_LLAMA3, (1.0, high, length))))
    for settings in candidates:
        expected = llama3_factors(wavelengths, factor, *settings.values())
        if np.allclose(factors, expected, rtol=1e-4):
            return {"rope_type": "llama3", "factor": factor} | settings
    return None
