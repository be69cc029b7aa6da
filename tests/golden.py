"""Golden values: what transformers computes for four tiny checkpoints, stored so that `make test` compares numbers
without torch.

    python tests/golden_torch.py

remakes tests/golden/ (needs torch). Weights are drawn with numpy from a seed, so that only results are stored;
importing this file needs no torch.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

STORED = Path(__file__).parent / "golden"
VOCAB = 48
PAD, END = 0, 1
RETAIN_WEIGHT = 1.25
HYPER = (("retain_weight", RETAIN_WEIGHT),)
ANSWER_TOKENS = 24  # greedy answers, tokens

COMMON = {"vocab_size": VOCAB, "num_hidden_layers": 2, "bos_token_id": None, "eos_token_id": END, "pad_token_id": None}
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"} | COMMON
PHI = {"architectures": ["PhiForCausalLM"], "model_type": "phi"} | COMMON
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 24,
}

# name -> config.json; the seed of the weights is the place in this table. Both styles of config.json: transformers 5
# (rope_parameters) and 4.
CONFIGS: dict[str, dict[str, Any]] = {
    "llama-llama3-tied": LLAMA
    | dict(
        hidden_size=48,
        intermediate_size=80,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        rms_norm_eps=1e-6,
        hidden_act="silu",
    )
    | dict(attention_bias=True, mlp_bias=True, tie_word_embeddings=True, max_position_embeddings=192)
    | dict(rope_parameters=LLAMA3 | {"rope_theta": 500.0}, dtype="float32"),
    "llama-dynamic-v4": LLAMA
    | dict(
        hidden_size=40,
        intermediate_size=64,
        num_attention_heads=5,
        num_key_value_heads=1,
        head_dim=12,
        rms_norm_eps=1e-5,
        hidden_act="gelu",
    )
    | dict(attention_bias=False, mlp_bias=False, tie_word_embeddings=False, max_position_embeddings=16)
    | dict(rope_theta=1000.0, rope_scaling={"type": "dynamic", "factor": 4.0}, torch_dtype="float32"),
    "phi-partial": PHI
    | dict(
        hidden_size=48,
        intermediate_size=96,
        num_attention_heads=3,
        num_key_value_heads=3,
        layer_norm_eps=1e-5,
        hidden_act="gelu_new",
    )
    | dict(qk_layernorm=False, tie_word_embeddings=False, max_position_embeddings=64)
    | dict(
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}, dtype="float32"
    ),
    "phi-qknorm-grouped-v4": PHI
    | dict(
        hidden_size=64,
        intermediate_size=64,
        num_attention_heads=4,
        num_key_value_heads=2,
        layer_norm_eps=1e-4,
        hidden_act="gelu",
    )
    | dict(qk_layernorm=True, tie_word_embeddings=True, max_position_embeddings=64)
    | dict(
        rope_theta=100.0,
        partial_rotary_factor=0.25,
        rope_scaling={"type": "linear", "factor": 2.0},
        torch_dtype="float32",
    ),
}


def tensor_shapes(c: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """{name in the checkpoint: shape} of a config, written down apart from the package's own tables."""
    D, F, N, K = c["hidden_size"], c["intermediate_size"], c["num_attention_heads"], c["num_key_value_heads"]
    H = c.get("head_dim") or D // N
    phi = c["model_type"] == "phi"
    output, up, down = ("dense", "fc1", "fc2") if phi else ("o_proj", "up_proj", "down_proj")
    attention = {"q_proj": (N * H, D), "k_proj": (K * H, D), "v_proj": (K * H, D), output: (D, N * H)}
    mlp = {up: (F, D), down: (D, F)} | ({} if phi else {"gate_proj": (F, D)})
    linear = {f"self_attn.{n}": (s, phi or c["attention_bias"]) for n, s in attention.items()}
    linear |= {f"mlp.{n}": (s, phi or c["mlp_bias"]) for n, s in mlp.items()}
    norms = {"input_layernorm": D} | ({} if phi else {"post_attention_layernorm": D})
    norms |= {"self_attn.q_layernorm": H, "self_attn.k_layernorm": H} if c.get("qk_layernorm") else {}
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (c["vocab_size"], D)}
    for i in range(c["num_hidden_layers"]):
        for name, (shape, biased) in linear.items():
            shapes[f"model.layers.{i}.{name}.weight"] = shape
            if biased:
                shapes[f"model.layers.{i}.{name}.bias"] = shape[:1]
        for name, size in norms.items():
            shapes |= {
                f"model.layers.{i}.{name}.{part}": (size,) for part in (("weight", "bias") if phi else ("weight",))
            }
    shapes |= {
        f"model.{'final_layernorm' if phi else 'norm'}.{part}": (D,)
        for part in (("weight", "bias") if phi else ("weight",))
    }
    if not c["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (c["vocab_size"], D)
    if phi:
        shapes["lm_head.bias"] = (c["vocab_size"],)
    return shapes


def draw_tensor(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """One random tensor, float32: no norm is 1, no bias is 0, attention looks somewhere, and logits are a few units
    large.
    """
    if "norm" in name and name.endswith("weight"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if name.endswith("bias"):
        return rng.normal(0, 0.3, shape).astype(np.float32)
    return rng.normal(0, 1.5 / shape[1] ** 0.5, shape).astype(np.float32)


def draw_tensors(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """All tensors of a checkpoint; the order of the names does not matter."""
    rng = np.random.default_rng(seed)
    return {name: draw_tensor(rng, name, shapes[name]) for name in sorted(shapes)}


def save_tokenizer(folder: Path, vocab_size: int) -> None:
    """A tokenizer of the words w0, w1, ...; w1 ends an answer."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(vocab_size)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": f"w{END}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def save_checkpoint(folder: Path, name: str) -> Path:
    """The checkpoint folder of a golden config: config.json, weights, tokenizer."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIGS[name]))
    save_file(
        draw_tensors(tensor_shapes(CONFIGS[name]), list(CONFIGS).index(name)),
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    save_tokenizer(folder, VOCAB)
    return folder


def logit_inputs() -> tuple[np.ndarray, np.ndarray]:
    """tokens [3, 20] and mask: one full row, one padded on the left, one on the right."""
    tokens = np.random.default_rng(10).integers(2, VOCAB, (3, 20))
    mask = np.ones((3, 20), bool)
    mask[1, :9] = False
    mask[2, 12:] = False
    return tokens, mask


def gradient_rows() -> list[tuple[list[int], int, int]]:
    """(tokens, start of the answer, group) of six training rows that share their first three tokens; group 1 forget, 2
    retain.
    """
    rng = np.random.default_rng(11)
    shared = rng.integers(2, VOCAB, 3).tolist()
    lengths = [
        (5, 6),
        (7, 4),
        (5, 9),
        (6, 5),
        (8, 3),
        (6, 8),
    ]  # prompt, answer; none beyond the 16 positions of the dynamic config
    return [(shared + rng.integers(2, VOCAB, p + a - 3).tolist(), p, 1 + i % 2) for i, (p, a) in enumerate(lengths)]


def prompts() -> list[list[int]]:
    """Prompts of different lengths for greedy answers."""
    rng = np.random.default_rng(12)
    return [rng.integers(2, VOCAB, n).tolist() for n in (5, 9, 12, 14)]


def package_mesh() -> Any:
    """A mesh of one device, so that nothing depends on how many the tests run with."""
    import jax
    from jax.sharding import AxisType, Mesh

    return Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "model"), axis_types=(AxisType.Auto, AxisType.Auto))


def package_batch(rows: list[Any], length: int, packed_rows: int, labels: int, several: bool = False) -> Any:
    """The packed batch of (tokens, start, group) rows; a micro-batch has `packed_rows` blocks of `length` positions,
    and `labels` labels.
    """
    from pmc_jax.data.packing import Packing, Row, common_prefix, pack

    rows = [Row(*r) for r in rows]
    batch = pack(rows, Packing(common_prefix(rows), length, packed_rows, labels, len(rows)))
    assert (batch.used > 1) == several
    return batch


def package_gradients(
    checkpoint: Any, batch: Any, hyper: tuple[tuple[str, float], ...], objective: str = "pmc", start: Any = None
) -> tuple[Any, dict[str, np.ndarray]]:
    """(metrics, {name in the checkpoint: gradient in its layout}) of one update of the package on a packed batch.

    start: parameters of the start model, for objectives that compare with it.

    After a first AdamW step without clipping the first moment is 0.1 times the gradient: what is tested is the training
    step itself.
    """
    import optax

    from pmc_jax.training.objectives import OBJECTIVES
    from pmc_jax.training.update import Recipe, create_state, put_batch, update

    chosen = dict(objective=OBJECTIVES[objective], hyper=hyper)
    recipe = Recipe(1e-3, 0.0, 0, 10, 0.0, "float32", **chosen)
    state, metrics = update(
        checkpoint.model, recipe, create_state(checkpoint.params, recipe), put_batch(batch, package_mesh()), start
    )
    moments = source_tensors(checkpoint, optax.tree_utils.tree_get(state.opt_state, "mu"))
    return metrics, {name: 10 * m for name, m in moments.items()}


def source_tensors(checkpoint: Any, tree: Any) -> dict[str, np.ndarray]:
    """A tree like the package's parameters as {name in the checkpoint: array in its layout}."""
    from flax import traverse_util

    from pmc_jax.models import weights

    flat = traverse_util.flatten_dict(tree, sep="/")
    table, sizes = weights.weight_map(checkpoint.family, checkpoint.model), checkpoint.config.axis_sizes
    return {
        name: np.concatenate([table[path].to_source(np.asarray(flat[path]), sizes) for path in paths])
        for name, paths in weights.by_tensor(table).items()
    }


def load_stored() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The stored values, as `compute` returned them."""
    with np.load(STORED / "logits.npz") as file:
        return dict(file), json.loads((STORED / "values.json").read_text())
