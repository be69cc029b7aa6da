"""Where the project lies, and the shapes and settings of the tiny models that the tests share."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
AUTHORS = dict(num_authors=10, questions_per_author=4, forget_percent=20, seed=0)
LLAMA = dict(
    architectures=["LlamaForCausalLM"],
    model_type="llama",
    vocab_size=512,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    rms_norm_eps=1e-6,
    rope_theta=10000.0,
    tie_word_embeddings=True,
)
PHI = dict(
    architectures=["PhiForCausalLM"],
    model_type="phi",
    vocab_size=540,  # wider than the tokenizer, as Phi-1.5's is
    hidden_size=48,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=256,
    layer_norm_eps=1e-5,
    partial_rotary_factor=0.5,
    rope_theta=10000.0,
    tie_word_embeddings=False,
)
SMALL = {
    "data.forget": "forget20",
    "data.retain": "retain80",
    "sample.num_samples": 4,
    "sample.temperature": 1.3,
    "sample.max_new_tokens": 48,
    "evaluate.max_new_tokens": 64,
    "train.epochs": 4,
    "train.batch_size": 4,
    "train.learning_rate": 2e-3,
}
