"""What the comparisons with torch share: drawn checkpoints, the shared ones, and transformers' answers."""

import json
import os
from pathlib import Path
from typing import Any

import golden
import numpy as np
import pytest

import pmc_jax

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
torch.set_num_threads(
    1
)  # its spinning threads and XLA's would otherwise fight for the cores; models this small gain nothing from two

SHARED = Path(os.environ.get("PMC_SHARED") or Path(__file__).parents[2].parent / "shared")
CHECKPOINTS = ("tofu-tiny-llama-instruct", "tofu-tiny-phi")
needs_shared = pytest.mark.skipif(
    not (SHARED / "checkpoints").is_dir(), reason=f"no {SHARED}/checkpoints (set PMC_SHARED)"
)
every_checkpoint = pytest.mark.parametrize("name", CHECKPOINTS)


def save_drawn_llama(folder: Path, tokenizer: Any) -> None:
    """A small Llama of drawn weights, wide enough apart that its answers differ, with a tokenizer of 512 words."""
    shape = dict(vocab_size=512, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**shape, num_key_value_heads=2, initializer_range=0.3)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def draw_rope(rng: np.random.Generator, kind: str, partial: float | None) -> dict[str, Any]:
    """rope_parameters of one kind, with short wavelengths, so that a short text already tells them apart."""
    rope: dict[str, Any] = {"rope_type": kind, "rope_theta": float(rng.choice([50.0, 1000.0, 10000.0, 500000.0]))}
    if kind != "default":
        rope["factor"] = float(rng.choice([2.0, 4.0, 8.0]))
    if kind == "llama3":
        # All three bands (kept, blended, stretched) are met: wavelengths start at 6.3, go through 8..24, and end
        # beyond.
        rope |= {
            "low_freq_factor": 1.0,
            "high_freq_factor": float(rng.choice([2.0, 3.0])),
            "original_max_position_embeddings": 24,
        }
    return rope | ({"partial_rotary_factor": partial} if partial else {})


def draw_llama(seed: int) -> Any:
    """A random LlamaConfig; the kind of RoPE, tied and biases go round with the seed, so that a few seeds meet them
    all.
    """
    rng = np.random.default_rng([1, seed])
    kv_heads, group = int(rng.choice([1, 2, 3])), int(rng.choice([1, 2, 4]))
    heads = kv_heads * group
    return transformers.LlamaConfig(
        vocab_size=int(rng.integers(40, 120)),
        hidden_size=heads * int(rng.choice([4, 6, 10])),  # even: the head width where none is given
        intermediate_size=int(rng.integers(16, 80)),
        num_hidden_layers=int(rng.integers(1, 3)),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=int(rng.choice([8, 12, 16, 24])) if seed % 5 else None,
        hidden_act=["silu", "gelu", "gelu_pytorch_tanh", "relu", "gelu_new"][seed % 5],
        rms_norm_eps=float(rng.choice([1e-6, 1e-5, 1e-2])),
        rope_parameters=draw_rope(rng, ["default", "linear", "dynamic", "llama3"][seed % 4], None),
        max_position_embeddings=24,
        attention_bias=seed % 3 == 1,
        mlp_bias=seed % 3 == 2,
        tie_word_embeddings=seed // 2 % 2 == 0,
        bos_token_id=None,
        eos_token_id=golden.END,
    )


def draw_phi(seed: int) -> Any:
    """A random PhiConfig, likewise."""
    rng = np.random.default_rng([2, seed])
    kv_heads, group = int(rng.choice([1, 2, 3])), int(rng.choice([1, 2, 4]))
    return transformers.PhiConfig(
        vocab_size=int(rng.integers(40, 120)),
        hidden_size=kv_heads * group * int(rng.choice([8, 16, 24])),
        intermediate_size=int(rng.integers(16, 80)),
        num_hidden_layers=int(rng.integers(1, 3)),
        num_attention_heads=kv_heads * group,
        num_key_value_heads=kv_heads,
        hidden_act=["gelu_new", "gelu", "silu", "relu"][seed % 4],
        layer_norm_eps=float(rng.choice([1e-5, 1e-2])),
        rope_parameters=draw_rope(rng, ["default", "linear", "dynamic"][seed % 3], float(rng.choice([0.5, 0.75, 1.0]))),
        max_position_embeddings=24,
        qk_layernorm=seed % 2 == 1,
        tie_word_embeddings=seed % 5 == 2,
        bos_token_id=None,
        eos_token_id=golden.END,
    )


def save_drawn(folder: Path, config: Any, seed: int, storage: str = "float32", **options) -> Path:
    """Save a checkpoint of this config with random weights, as transformers writes it."""
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    tensors = golden.draw_tensors({name: tuple(p.shape) for name, p in model.named_parameters()}, seed)
    model.load_state_dict({name: torch.tensor(x) for name, x in tensors.items()}, strict=not config.tie_word_embeddings)
    model.to(getattr(torch, storage)).save_pretrained(folder, **options)
    golden.save_tokenizer(folder, config.vocab_size)
    return folder


STORAGE = ("float32", "bfloat16", "float16")


def style(seed: int) -> dict[str, object]:
    """How the checkpoint is written: storage dtype, several files, config.json of transformers 5 or 4 with either name
    of the RoPE type.
    """
    return {"storage": STORAGE[seed % 3], "sharded": seed % 4 == 1, "v4": [None, "type", "rope_type"][seed // 3 % 3]}


def save_styled(folder: Path, config: Any, seed: int) -> Path:
    """A drawn checkpoint, written in its seed's style."""
    how = style(seed)
    save_drawn(folder, config, seed, how["storage"], **({"max_shard_size": "3KB"} if how["sharded"] else {}))
    assert (folder / "model.safetensors.index.json").exists() == how["sharded"]
    if how["v4"]:
        to_v4(folder, how["v4"])
    return folder


def to_v4(folder: Path, type_key: str) -> None:
    """Rewrite config.json as transformers 4 wrote it: rope_theta and partial_rotary_factor on top, rope_scaling,
    torch_dtype.
    """
    raw = json.loads((folder / "config.json").read_text())
    rope = raw.pop("rope_parameters")
    if "full_attention" in rope:  # of two kinds of layers; a scaling is that of full layers alone
        raw["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope, type_key = rope["full_attention"], "rope_type"  # transformers does not read the older name there
    kind = rope.pop("rope_type")
    raw |= {key: rope.pop(key) for key in ("rope_theta", "partial_rotary_factor") if key in rope}
    raw |= {
        "rope_scaling": None if kind == "default" else {type_key: kind} | rope,
        "torch_dtype": raw.pop("dtype"),
        "transformers_version": "4.44.0",
    }
    (folder / "config.json").write_text(json.dumps(raw))


def load_torch(folder: Path | str, dtype: str = "float32", attention: str = "eager") -> Any:
    """transformers' model of a folder, ready for inference."""
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), attn_implementation=attention
    ).eval()


def load_ours(folder: Path | str, dtype: str = "float32") -> pmc_jax.PretrainedModel:
    """Our checkpoint of a folder, on one device."""
    return pmc_jax.load(str(folder), dtype, mesh=golden.package_mesh())


def draw_inputs(vocab_size: int, seed: int, length: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """tokens [4, length] and mask: a full row, one padded on the left, one on the right, a short one padded on both
    sides.
    """
    tokens = np.random.default_rng([3, seed]).integers(0, vocab_size, (4, length))
    mask = np.ones(tokens.shape, bool)
    mask[1, : length // 3] = False
    mask[2, -length // 4 :] = False
    mask[3, : length // 2] = mask[3, -length // 5 :] = False
    return tokens, mask


def read_rows(split: str) -> list[dict[str, Any]]:
    """Rows of a split of the shared tofu-mini."""
    return [json.loads(line) for line in (SHARED / "tofu-mini" / f"{split}.jsonl").read_text().splitlines()]
