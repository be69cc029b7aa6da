"""A small random Llama in a folder, from numpy alone: what is refused is refused before a program is compiled."""

import json

import numpy as np
from safetensors.numpy import load_file, save_file
from tiny import LLAMA

FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 123456\n"


def tensors(raw=LLAMA, seed=0):
    """{name: float32 array} of a Llama with this config.json."""
    draw = np.random.default_rng(seed)
    width, hidden, heads, kv = (
        raw[key] for key in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    )
    kv_width = width // heads * kv

    def normal(*shape):
        return (draw.standard_normal(shape) * 0.2).astype(np.float32)

    made = {"model.embed_tokens.weight": normal(raw["vocab_size"], width), "model.norm.weight": np.ones(width, "f4")}
    for i in range(raw["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        made |= {layer + f"{name}_layernorm.weight": np.ones(width, "f4") for name in ("input", "post_attention")}
        shapes = {"q_proj": (width, width), "k_proj": (kv_width, width), "v_proj": (kv_width, width)}
        shapes |= {"o_proj": (width, width)}
        made |= {f"{layer}self_attn.{name}.weight": normal(*shape) for name, shape in shapes.items()}
        shapes = {"gate_proj": (hidden, width), "up_proj": (hidden, width), "down_proj": (width, hidden)}
        made |= {f"{layer}mlp.{name}.weight": normal(*shape) for name, shape in shapes.items()}
    return made


def make_folder(folder, tokenizer, made=None, **changes):
    """The folder of a checkpoint; changes: of config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(made or tensors(), folder / FILE)
    raw = LLAMA | {"eos_token_id": tokenizer.eos_token_id} | changes
    (folder / "config.json").write_text(json.dumps(raw))
    tokenizer.save_pretrained(folder)
    return folder


def change_json(folder, name="config.json", **changes):
    """Change keys of a JSON file; None removes one."""
    value = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
    (folder / name).write_text(json.dumps({k: v for k, v in (value | changes).items() if v is not None}))


def change_tensors(folder, **changes):
    """Change tensors, whose names have _ for a dot where there is one; None removes one."""
    made = load_file(folder / FILE)
    save_file({k: v for k, v in (made | changes).items() if v is not None}, folder / FILE)


def shard(folder, made, count=2):
    """Write tensors as shards with an index."""
    names = sorted(made)
    files = {name: f"model-{i % count + 1:05d}-of-{count:05d}.safetensors" for i, name in enumerate(names)}
    for file in sorted(set(files.values())):
        save_file({n: made[n] for n in names if files[n] == file}, folder / file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": files}))
