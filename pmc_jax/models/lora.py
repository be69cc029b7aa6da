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
from pmc_jax.models.decoder import Decoder
from pmc_jax.models.family import Family
from pmc_jax.models.weights import Weight, by_tensor, layer_matrices


class Lora(NamedTuple):
    """Which adapters there are; hashable, so that it is a static argument.

    Attributes:
        rank: of each adapter.
        alpha: its scale times its rank.
        weights: (parameter path, what it is in the checkpoint), of all parameters that an adapter changes.
    """

    rank: int
    alpha: float
    weights: tuple[tuple[str, Weight], ...]

    @property
    def modules(self) -> dict[str, list[tuple[str, Weight]]]:
        """{key of an adapter: the parameters that it changes}: one, or the parts of a fused tensor.

        The key is the path of the first parameter.
        """
        weights = dict(self.weights)
        return {paths[0]: [(p, weights[p]) for p in paths] for paths in by_tensor(weights).values()}


def module_of(weight: Weight) -> str:
    """The last part of a weight's module in the checkpoint, such as "q_proj"."""
    return weight.name.split(".")[-2]


def plan(family: Family, model: Decoder, rank: int, alpha: float, targets: str) -> Lora:
    """Adapters for the named modules of all layers.

    Args:
        family: whose names the modules have.
        model: to be adapted.
        rank: of each adapter.
        alpha: its scale times its rank.
        targets: "all" (every matrix of attention and MLP), or the checkpoint's names joined by commas, such as
            "q_proj,v_proj".

    Raises:
        UserError: the model has no such module.
    """
    layers = layer_matrices(family, model)
    known = dict.fromkeys(map(module_of, layers.values()))
    wanted = list(known) if targets == "all" else [t.strip() for t in targets.split(",")]
    unknown = [t for t in wanted if t not in known]
    if unknown:
        raise UserError(
            f"lora.targets={targets!r}: this model has no {', '.join(unknown)}; it has {', '.join(known)}, or all"
        )
    return Lora(rank, alpha, tuple((p, w) for p, w in layers.items() if module_of(w) in wanted))


def abstract(model: Decoder, lora: Lora, mesh: Mesh) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """The adapters {key: {"a", "b"}} by shape and sharding: float32, the same on every device."""
    everywhere = meshes.replicated_sharding(mesh)
    adapters = {}
    for key, ((_, weight), *_) in lora.modules.items():
        out, width = weight.tensor_shape(model.config.axis_sizes)
        shapes = {"a": (lora.rank, width), "b": (out, lora.rank)}
        adapters[key] = {
            side: jax.ShapeDtypeStruct(shape, np.float32, sharding=everywhere) for side, shape in shapes.items()
        }
    return adapters


def create(model: Decoder, lora: Lora, seed: int, mesh: Mesh) -> dict[str, dict[str, jax.Array]]:
    """Fresh adapters, as `abstract` says."""
    rng, adapters = np.random.default_rng(seed), {}
    for key, like in abstract(model, lora, mesh).items():
        a = rng.uniform(-1, 1, like["a"].shape).astype(np.float32) / np.sqrt(like["a"].shape[1], dtype=np.float32)
        adapters[key] = {"a": a, "b": np.zeros(like["b"].shape, np.float32)}
    return meshes.put(adapters, meshes.replicated_sharding(mesh))


@functools.partial(jax.jit, static_argnames=("model", "lora"))
def merge(model: Decoder, lora: Lora, base: Any, adapters: Any) -> Any:
    """The parameters with the adapters added, in the base's dtype."""
    flat, sizes = traverse_util.flatten_dict(base, sep="/"), model.config.axis_sizes
    for key, parameters in lora.modules.items():
        change = (lora.alpha / lora.rank) * (adapters[key]["b"] @ adapters[key]["a"])
        for path, weight in parameters:
            own = change[weight.rows(sizes)] if weight.parts else change
            flat[path] = (flat[path] + weight.to_param(own, sizes)).astype(flat[path].dtype)
    return traverse_util.unflatten_dict(flat, sep="/")


def save(folder: Path, lora: Lora, adapters: Any, base: str) -> None:
    """Write the adapters as `PeftModel.from_pretrained(model, folder)` loads them.

    Args:
        folder: is made.
        lora: which adapters there are.
        adapters: their arrays.
        base: name of the untouched checkpoint that they go onto.
    """
    folder.mkdir()
    tensors = {}
    for key, ((_, weight), *_) in lora.modules.items():
        module = "base_model.model." + weight.name.removesuffix(".weight")
        tensors |= {f"{module}.lora_{side.upper()}.weight": np.asarray(adapters[key][side]) for side in ("a", "b")}
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
