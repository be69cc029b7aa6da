"""How llama.cpp stores each architecture: names of tensors, what it changes in them, and the metadata's config.

A new architecture is a Layout in the table LAYOUTS.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from pmc_jax.errors import UserError
from pmc_jax.models.gguf_file import Fields
from pmc_jax.models.gguf_rope import read_scaling

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
QK_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
FUSED = {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"}
FOUR_NORMS = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
LAYERS_OF_27B = {"gemma2": 46, "gemma3": 62}  # by which llama.cpp tells the sizes apart


class Layout(NamedTuple):
    """One architecture of llama.cpp.

    Attributes:
        architecture: Hugging Face's name.
        model_type: Hugging Face's.
        config: what a config.json says beyond the sizes, by the file's fields.
        layer_tensors: names in a layer, llama.cpp's -> Hugging Face's.
        interleaved: rows of queries and keys are stored in the order of rotary pairs.
        norm_offset: what is added to norms in the file.
        partial_rotary: RoPE may be of a part of a head.
    """

    architecture: str
    model_type: str
    config: Callable[[Fields], dict[str, Any]]
    layer_tensors: dict[str, str]
    interleaved: bool = False
    norm_offset: float = 0.0
    partial_rotary: bool = False


def llama(fields: Fields) -> dict[str, Any]:
    """Llama and Mistral. The file has no windows: llama.cpp reads such a Mistral without them."""
    return {
        "hidden_act": "silu",
        "attention_bias": "blk.0.attn_q.bias" in fields.tensors,
        "mlp_bias": "blk.0.ffn_gate.bias" in fields.tensors,
    }


def qwen(fields: Fields) -> dict[str, Any]:
    """Qwen2, whose biases need no switch, and Qwen3. The file has no windows."""
    return {"hidden_act": "silu", "attention_bias": "blk.0.attn_q.bias" in fields.tensors, "use_sliding_window": False}


def phi3(fields: Fields) -> dict[str, Any]:
    """Phi-3: a part of a head may be rotated, and a window of 0 is none."""
    window = fields.get("attention.sliding_window")
    if window is None:
        key = fields.key("attention.sliding_window")
        raise UserError(f"{fields.file}: its metadata has no {key!r}; convert the checkpoint with a newer llama.cpp")
    length = fields.number("context_length")
    return {
        "hidden_act": "silu",
        "sliding_window": fields.number("attention.sliding_window") if window else None,
        "original_max_position_embeddings": fields.number("rope.scaling.original_context_length", length),
        "partial_rotary_factor": rotated(fields) / head_width(fields),
    }


def gemma(fields: Fields) -> dict[str, Any]:
    """What Gemma-2 and Gemma-3 have in common. The factor of the scores is not stored: it follows from the size."""
    heads, width = fields.number("attention.head_count"), fields.number("embedding_length")
    is_27b = fields.number("block_count") == LAYERS_OF_27B[fields.architecture]
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": width // heads if is_27b else head_width(fields),
        "sliding_window": fields.number("attention.sliding_window"),
    }


def gemma2(fields: Fields) -> dict[str, Any]:
    """Gemma-2: a window in every other layer, soft-caps of scores and logits."""
    names = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
    return gemma(fields) | {name: fields.number(name, usual) for name, usual in names.items()}


def gemma3(fields: Fields) -> dict[str, Any]:
    """Gemma-3: five layers of six have a window, and a RoPE of their own."""
    local = fields.number("rope.freq_base_swa", 10000.0)
    cap = "final_logit_softcapping"
    caps = {cap: fields.number(cap) if fields.get(cap) else None}
    return gemma(fields) | caps | {"sliding_window_pattern": 6, "rope_local_base_freq": float(local)}


def head_width(fields: Fields) -> int:
    """H."""
    return fields.number(
        "attention.key_length", fields.number("embedding_length") // fields.number("attention.head_count")
    )


def rotated(fields: Fields) -> int:
    """How many entries of a head are rotated."""
    return fields.number("rope.dimension_count", head_width(fields))


LAYOUTS = {
    "llama": Layout("LlamaForCausalLM", "llama", llama, LAYER_TENSORS, interleaved=True),
    "qwen2": Layout("Qwen2ForCausalLM", "qwen2", qwen, LAYER_TENSORS),
    "qwen3": Layout("Qwen3ForCausalLM", "qwen3", qwen, LAYER_TENSORS | QK_NORMS),
    "phi3": Layout("Phi3ForCausalLM", "phi3", phi3, LAYER_TENSORS | FUSED, partial_rotary=True),
    "gemma2": Layout("Gemma2ForCausalLM", "gemma2", gemma2, LAYER_TENSORS | FOUR_NORMS, norm_offset=1.0),
    "gemma3": Layout(
        "Gemma3ForCausalLM", "gemma3_text", gemma3, LAYER_TENSORS | FOUR_NORMS | QK_NORMS, norm_offset=1.0
    ),
}


def find_layout(fields: Fields) -> Layout:
    """The file's layout. UserError for an architecture that has none, experts, or one part of several."""
    if fields.architecture not in LAYOUTS:
        raise UserError(
            f"{fields.file}: architecture {fields.architecture!r} is not supported as GGUF; supported: "
            f"{', '.join(map(repr, LAYOUTS))}"
        )
    if fields.metadata.get("split.count", 0) > 1:
        parts = fields.metadata["split.count"]
        raise UserError(
            f"{fields.file}: is one of {parts} parts; join them with: llama-gguf-split --merge FIRST OUTPUT"
        )
    if fields.get("expert_count", 0):
        raise UserError(f"{fields.file}: a mixture of {fields.get('expert_count')} experts is not supported")
    return LAYOUTS[fields.architecture]


def read_config(fields: Fields, layout: Layout) -> dict[str, Any]:
    """The config.json of the file's model."""
    keys = {
        "hidden_size": "embedding_length",
        "intermediate_size": "feed_forward_length",
        "num_hidden_layers": "block_count",
        "num_attention_heads": "attention.head_count",
        "max_position_embeddings": "context_length",
        "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    }
    config = {name: fields.number(key) for name, key in keys.items()}
    head_dim, dim = head_width(fields), rotated(fields)
    whole = ("attention.value_length",) + (() if layout.partial_rotary else ("rope.dimension_count",))
    for key in whole:
        if fields.get(key, head_dim) != head_dim:
            raise UserError(
                f"{fields.file}: {fields.key(key)} is not the width of a head, {head_dim}; that is not supported"
            )
    if "token_embd.weight" not in fields.tensors:
        raise UserError(f"{fields.file}: has no tensor token_embd.weight")
    theta = float(fields.number("rope.freq_base", 10000.0))
    return {
        "architectures": [layout.architecture],
        "model_type": layout.model_type,
        "vocab_size": fields.tensors["token_embd.weight"].shape[0],
        **config,
        "num_key_value_heads": fields.number("attention.head_count_kv", config["num_attention_heads"]),
        "head_dim": head_dim,
        "rope_theta": theta,
        "rope_scaling": read_scaling(fields, dim, theta),
        "tie_word_embeddings": "output.weight" not in fields.tensors,
        **layout.config(fields),
        **read_special_tokens(fields),
    }


def read_special_tokens(fields: Fields) -> dict[str, Any]:
    """Ids of begin, end and padding; end is a list where a turn ends in another one."""
    names = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
    ids = {name: fields.metadata.get(f"tokenizer.ggml.{key}_token_id") for name, key in names.items()}
    others = (fields.metadata.get(f"tokenizer.ggml.{key}_token_id") for key in ("eot", "eom"))
    ends = {ids["eos_token_id"], *others} - {None}
    ids["eos_token_id"] = sorted(ends) if len(ends) > 1 else next(iter(ends), None)
    return {name: value for name, value in ids.items() if value is not None}
