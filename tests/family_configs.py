"""A small config.json of each family, with the switches that set it apart; windows are shorter than the texts."""

from typing import Any

SIZES = dict(
    vocab_size=512,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=256,
    rms_norm_eps=1e-5,
    tie_word_embeddings=False,
)
WINDOW = 7
FULL, SLIDING = "full_attention", "sliding_attention"
PLAIN = {"rope_type": "default", "rope_theta": 500.0}
YARN = {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 16}
LONG = {"rope_type": "longrope", "rope_theta": 500.0, "long_factor": [1.5, 2.0, 7.0], "short_factor": [1.0, 1.25, 1.5]}


def _config(architecture: str, model_type: str, rope: dict[str, Any], **more) -> dict[str, Any]:
    return SIZES | {"architectures": [architecture], "model_type": model_type, "rope_parameters": rope} | more


GEMMA = dict(sliding_window=WINDOW, query_pre_attn_scalar=16, layer_types=[SLIDING, FULL], tie_word_embeddings=True)
CONFIGS = {
    "llama": _config("LlamaForCausalLM", "llama", YARN, attention_bias=True, mlp_bias=True),
    "qwen2": _config(
        "Qwen2ForCausalLM",
        "qwen2",
        PLAIN,
        use_sliding_window=True,
        sliding_window=WINDOW,
        max_window_layers=1,
        tie_word_embeddings=True,
    ),
    "qwen3": _config("Qwen3ForCausalLM", "qwen3", PLAIN, head_dim=12),
    "mistral": _config("MistralForCausalLM", "mistral", PLAIN, sliding_window=WINDOW),
    "ministral": _config(
        "MinistralForCausalLM", "ministral", PLAIN, sliding_window=WINDOW, layer_types=[FULL, SLIDING]
    ),
    "olmo2": _config("Olmo2ForCausalLM", "olmo2", PLAIN),
    "olmo3": _config(
        "Olmo3ForCausalLM",
        "olmo3",
        {FULL: YARN, SLIDING: PLAIN},
        sliding_window=WINDOW,
        layer_types=[SLIDING, FULL],
    ),
    "phi3": _config(
        "Phi3ForCausalLM",
        "phi3",
        LONG | {"partial_rotary_factor": 0.75},
        sliding_window=WINDOW,
        original_max_position_embeddings=12,
    ),
    "gemma2": _config(
        "Gemma2ForCausalLM",
        "gemma2",
        PLAIN,
        **GEMMA,
        attn_logit_softcapping=5.0,
        final_logit_softcapping=8.0,
    ),
    "gemma3": _config(
        "Gemma3ForCausalLM",
        "gemma3_text",
        {FULL: {"rope_type": "linear", "rope_theta": 5000.0, "factor": 8.0}, SLIDING: PLAIN},
        **GEMMA,
        final_logit_softcapping=8.0,
    ),
}
CONFIGS["gemma3-multimodal"] = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "model_type": "gemma3",
    "text_config": CONFIGS["gemma3"],
}
