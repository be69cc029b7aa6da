"""A family of the tests: every switch that Llama and Phi do not have. It is added from outside the package."""

from pmc_jax.models import Family, LayerKind, ModelConfig
from pmc_jax.models.config import read_activation, read_sizes
from pmc_jax.models.llama import WEIGHTS as LLAMA_WEIGHTS
from pmc_jax.models.read_rope import read_rope

RAW = dict(
    architectures=["ToyForCausalLM"],
    model_type="toy",
    vocab_size=512,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=12,
    max_position_embeddings=256,
    sliding_window=7,
    tie_word_embeddings=True,
)


def read_config(raw):
    """A window on every other layer, another RoPE and a soft-cap on the rest, norms before and after, q/k-norms."""
    sizes = read_sizes(raw)
    local, spread = (read_rope(raw | {"rope_theta": theta}, sizes["head_dim"]) for theta in (100.0, 10000.0))
    kinds = LayerKind(local, window=raw["sliding_window"]), LayerKind(spread, scale=0.25, softcap=20.0)
    return ModelConfig(
        family="toy",
        layers=tuple(kinds[i % 2] for i in range(raw["num_hidden_layers"])),
        norm_eps=1e-6,
        activation=read_activation(raw, "gelu_pytorch_tanh"),
        tied_head=raw["tie_word_embeddings"],
        norm="rms_offset",
        post_norm=True,
        qk_norm="rms",
        qk_norm_full=raw.get("qk_norm_full", False),
        embed_scale=sizes["width"] ** 0.5,
        logit_softcap=15.0,
        **sizes,
    )


LAYER = "model.layers.{}"
WEIGHTS = tuple(row for row in LLAMA_WEIGHTS if not any(f".{p}_proj." in row[0] for p in ("q", "k", "v", "gate", "up")))
WEIGHTS += (
    (f"{LAYER}.self_attn.qkv_proj.weight", "layer_{}/attention/query", "[NH]+KH+KH D -> D N H"),
    (f"{LAYER}.self_attn.qkv_proj.weight", "layer_{}/attention/key", "NH+[KH]+KH D -> D K H"),
    (f"{LAYER}.self_attn.qkv_proj.weight", "layer_{}/attention/value", "NH+KH+[KH] D -> D K H"),
    (f"{LAYER}.mlp.gate_up_proj.weight", "layer_{}/mlp/gate", "[F]+F D -> D F"),
    (f"{LAYER}.mlp.gate_up_proj.weight", "layer_{}/mlp/up", "F+[F] D -> D F"),
    (f"{LAYER}.self_attn.q_norm.weight", "layer_{}/attention/query_norm/scale", "H -> H"),
    (f"{LAYER}.self_attn.k_norm.weight", "layer_{}/attention/key_norm/scale", "H -> H"),
    (f"{LAYER}.post_attention_norm.weight", "layer_{}/attention_post_norm/scale", "D -> D"),
    (f"{LAYER}.post_mlp_norm.weight", "layer_{}/mlp_post_norm/scale", "D -> D"),
)
FAMILY = Family(read_config, WEIGHTS)
FULL_WEIGHTS = tuple(
    (name, path, f"{heads} -> {' '.join(heads)}")
    for name, path, heads in (
        (f"{LAYER}.self_attn.q_norm.weight", "layer_{}/attention/query_norm/scale", "NH"),
        (f"{LAYER}.self_attn.k_norm.weight", "layer_{}/attention/key_norm/scale", "KH"),
    )
)
# As FAMILY, with q/k-norms over all heads together.
FULL_NORM_FAMILY = Family(
    lambda raw: read_config(raw | {"qk_norm_full": True}),
    tuple(row for row in WEIGHTS if ".q_norm." not in row[0] and ".k_norm." not in row[0]) + FULL_WEIGHTS,
)
