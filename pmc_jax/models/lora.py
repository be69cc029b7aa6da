"""Low-rank adapters: W + (alpha / rank) B A, of which only A and B are trained (Hu et al., "LoRA", ICLR 2022).

Adapters are kept in the checkpoint's layout, A [rank, in] and B [out, rank], float32: what PEFT loads is what lies in
memory. A starts uniform in +-1/sqrt(in), B at 0, as PEFT's do, so that training starts at the model as it is.
"""

import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util
from jax.sharding import Mesh
from safetensors.numpy import save_file

from pmc_jax.distributed import meshes
from pmc_jax.errors import UserError
from pmc_jax.models import Decoder, Family
from pmc_jax.models.weights import Weight, weight_map


class Lora(NamedTuple):
    """Which adapters there are; hashable, so that it is a static argument.

    rank: of each adapter. alpha: its scale times its rank. weights: (parameter path, what it is in the checkpoint).
    """

    rank: int
    alpha: float
    weights: tuple[tuple[str, Weight], ...]


def module_of(weight: Weight) -> str:
    """The last part of a weight's module in the checkpoint, as "q_proj"."""
    return weight.name.split(".")[-2]


def plan(family: Family, model: Decoder, rank: int, alpha: float, targets: str) -> Lora:
    """Adapters for the named modules of all layers.

    targets: "all" (every matrix of attention and MLP), or the checkpoint's names joined by commas, as "q_proj,v_proj".
    UserError for others.
    """
    layers = {p: w for p, w in weight_map(family, model).items() if p.startswith("layer_") and len(w.source_axes) == 2}
    known = dict.fromkeys(map(module_of, layers.values()))
    wanted = list(known) if targets == "all" else [t.strip() for t in targets.split(",")]
    unknown = [t for t in wanted if t not in known]
    if unknown:
        raise UserError(
            f"lora.targets={targets!r}: this model has no {', '.join(unknown)}; it has {', '.join(known)}, or all"
        )
    return Lora(rank, alpha, tuple((p, w) for p, w in layers.items() if module_of(w) in wanted))


def abstract(model: Decoder, lora: Lora, mesh: Mesh) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """The adapters {parameter path: {"a", "b"}} by shape and sharding: float32, the same on every device."""
    everywhere = meshes.replicated(mesh)
    found = {}
    for path, weight in lora.weights:
        out, width = weight.source_shape(model.config.axis_sizes)
        shapes = {"a": (lora.rank, width), "b": (out, lora.rank)}
        found[path] = {
            side: jax.ShapeDtypeStruct(shape, np.float32, sharding=everywhere) for side, shape in shapes.items()
        }
    return found


def create(model: Decoder, lora: Lora, seed: int, mesh: Mesh) -> dict[str, dict[str, jax.Array]]:
    """Fresh adapters, as `abstract` says."""
    rng, found = np.random.default_rng(seed), {}
    for path, like in abstract(model, lora, mesh).items():
        a = rng.uniform(-1, 1, like["a"].shape).astype(np.float32) / np.sqrt(like["a"].shape[1], dtype=np.float32)
        found[path] = {"a": a, "b": np.zeros(like["b"].shape, np.float32)}
    return meshes.put(found, meshes.replicated(mesh))


@functools.partial(jax.jit, static_argnames=("model", "lora"))
def merge(model: Decoder, lora: Lora, base: Any, adapters: Any) -> Any:
    """The parameters with the adapters added, in the base's dtype."""
    flat, sizes = traverse_util.flatten_dict(base, sep="/"), model.config.axis_sizes
    for path, weight in lora.weights:
        change = (lora.alpha / lora.rank) * (adapters[path]["b"] @ adapters[path]["a"])
        flat[path] = (flat[path] + weight.to_param(change, sizes)).astype(flat[path].dtype)
    return traverse_util.unflatten_dict(flat, sep="/")


def save(folder: Path, lora: Lora, adapters: Any, base: str) -> None:
    """Write the adapters as PEFT loads them onto the untouched checkpoint `base`: `PeftModel.from_pretrained(model,
    folder)`.
    """
    folder.mkdir()
    tensors = {}
    for path, weight in lora.weights:
        module = "base_model.model." + weight.name.removesuffix(".weight")
        tensors |= {f"{module}.lora_{side.upper()}.weight": np.asarray(adapters[path][side]) for side in ("a", "b")}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    targets = sorted({module_of(w) for _, w in lora.weights})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
    }
    config |= {"target_modules": targets, "lora_dropout": 0.0, "bias": "none", "inference_mode": True}
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
