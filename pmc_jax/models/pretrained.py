"""A Hugging Face checkpoint as one value: folder or hub id -> model, parameters, tokenizer; and back."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from pmc_jax.distributed import meshes, multihost
from pmc_jax.errors import UserError
from pmc_jax.models import Decoder, Family, ModelConfig, find_family, lora, weights

NEEDED = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model", "merges.txt"]
DTYPES = ("float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class PretrainedModel:
    """model: Linen module. params: nested dict of arrays. config: the model's shape. tokenizer: transformers'
    tokenizer.

    raw_config, generation_config: the JSON files as read. end_tokens: ids that end an answer. source: where it came
    from.
    adapters: (Lora, adapters) that are merged into params, where such were trained.
    """

    model: Decoder
    params: Any
    config: ModelConfig
    tokenizer: Any
    family: Family
    raw_config: dict[str, Any]
    generation_config: dict[str, Any]
    end_tokens: tuple[int, ...]
    source: str
    adapters: tuple[lora.Lora, Any] | None = None

    def replace(self, **changes) -> "PretrainedModel":
        return dataclasses.replace(self, **changes)


def check_path(path: str) -> None:
    """UserError for what is neither a folder nor could be a hub id; nothing is read or fetched."""
    if not path:
        raise UserError(
            "model.path is empty: give a hub id or a folder, as --config.model.path=meta-llama/Llama-3.2-1B-Instruct"
        )
    if not Path(path).is_dir() and (path.startswith((".", "/", "~")) or path.count("/") != 1):
        raise UserError(f"model.path={path!r}: no such folder, and not a hub id (owner/name)")


def find_folder(path: str) -> Path:
    """The local folder of a checkpoint; a hub id is downloaded (or found in the hub's cache)."""
    check_path(path)
    if Path(path).is_dir():
        return Path(path)
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(path, allow_patterns=NEEDED))
    except Exception as error:  # the hub client raises many kinds; each means that the checkpoint could not be had
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"model.path={path!r}: no such folder, and the hub did not give it: {reason}") from None


def read_json(file: Path, required: bool = True) -> dict[str, Any]:
    """A JSON object; {} when an optional file is absent."""
    if not file.exists():
        if required:
            raise UserError(f"{file}: missing; a checkpoint folder needs it")
        return {}
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # bad JSON, bad UTF-8
        raise UserError(f"{file}: not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{file}: must hold a JSON object, not a {type(value).__name__}")
    return value


def load_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer; remote code is never run."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds for a broken or absent tokenizer
        raise UserError(f"{folder}: its tokenizer cannot be loaded: {str(error).strip().splitlines()[0]}") from None


def find_end_tokens(raw: dict[str, Any], generation: dict[str, Any], tokenizer: Any) -> tuple[int, ...]:
    """Every id that any of config, generation config and tokenizer calls the end."""
    found = set()
    for value in (raw.get("eos_token_id"), generation.get("eos_token_id"), tokenizer.eos_token_id):
        found |= set(value if isinstance(value, list) else [value]) - {None}
    if not found:
        raise UserError(
            "the checkpoint names no end token (eos_token_id) in config.json, generation_config.json or its tokenizer"
        )
    return tuple(sorted(found))


def load(path: str, dtype: str = "float32", mesh: Mesh | None = None) -> PretrainedModel:
    """Load a checkpoint from a local folder or by hub id.

    path: folder or "owner/name". dtype: of the parameters, "float32", "bfloat16" or "float16".
    mesh: a (data, model) mesh; all devices on `data` when None.
    Raises UserError, in one line, for a missing folder, an unsupported architecture or setting, and tensors that do not
    fit.
    """
    if dtype not in DTYPES:
        raise UserError(f"model.dtype={dtype!r}: choose one of {', '.join(DTYPES)}")
    folder = find_folder(path)
    raw, generation = read_json(folder / "config.json"), read_json(folder / "generation_config.json", required=False)
    family = find_family(raw)
    model = family.module(family.read_config(raw))
    mesh = mesh or meshes.make_mesh()
    meshes.check_mesh(mesh, model.config.axis_sizes)
    params = weights.load_params(folder, family, model, mesh, dtype)
    tokenizer = load_tokenizer(folder)
    ends = find_end_tokens(raw, generation, tokenizer)
    return PretrainedModel(model, params, model.config, tokenizer, family, raw, generation, ends, str(path))


def create(
    raw_config: dict[str, Any], tokenizer: Any, seed: int, dtype: str = "float32", mesh: Mesh | None = None
) -> PretrainedModel:
    """A checkpoint with fresh parameters, from a `config.json` in Hugging Face's words and a tokenizer."""
    family = find_family(raw_config)
    model = family.module(family.read_config(raw_config))
    mesh = mesh or meshes.make_mesh()
    meshes.check_mesh(mesh, model.config.axis_sizes)
    params = weights.init_params(family, model, mesh, seed, dtype)
    ends = find_end_tokens(raw_config, {}, tokenizer)
    generation = {key: raw_config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if key in raw_config}
    return PretrainedModel(model, params, model.config, tokenizer, family, raw_config, generation, ends, "scratch")


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a config and weights. A run's folder has a config.json too, and a finished one its weights
    in hf/.
    """
    return (folder / "config.json").exists() and any(folder.glob("*.safetensors"))


def export(checkpoint: PretrainedModel, folder: str | Path) -> Path:
    """Write what transformers and vLLM load: safetensors, config, generation config, tokenizer and chat template.
    Returns the folder.

    Trained adapters are merged into the weights, and also stand alone in adapter/, as PEFT loads them.
    The folder appears whole or not at all; an older export in its place is replaced. All processes of a run call this,
    the first one writes.
    """
    folder = Path(folder).resolve()
    partial = folder.with_name(folder.name + ".partial")

    def begin() -> None:
        if folder.exists() and not is_checkpoint(folder) and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder}: not empty and not a checkpoint; nothing was written")
        if folder == Path(checkpoint.source).resolve():
            raise UserError(f"{folder}: is the checkpoint that this one was made from; choose another folder")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)

    def finish() -> None:
        dtype = str(jax.tree.leaves(checkpoint.params)[0].dtype)
        config = {k: v for k, v in checkpoint.raw_config.items() if k not in ("dtype", "torch_dtype")} | {
            "dtype": dtype,
            "torch_dtype": dtype,
        }
        (partial / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        if checkpoint.generation_config:
            (partial / "generation_config.json").write_text(json.dumps(checkpoint.generation_config, indent=2) + "\n")
        checkpoint.tokenizer.save_pretrained(partial)
        if checkpoint.adapters:
            lora.save(partial / "adapter", *checkpoint.adapters, base=checkpoint.source)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)

    multihost.broadcast_from_primary(begin)
    weights.save_params(partial, checkpoint.params, checkpoint.family, checkpoint.model)
    multihost.broadcast_from_primary(finish)
    return folder


def logits(checkpoint: PretrainedModel, tokens_BT: Any, mask_BT: Any = None) -> jax.Array:
    """Next-token logits [B, T, V], float32.

    tokens_BT: int ids. mask_BT: True on real tokens (all, when None); padding on either side gives the same values at
    real positions.
    """
    tokens_BT = jnp.asarray(tokens_BT, jnp.int32)
    mask_BT = jnp.ones(tokens_BT.shape, bool) if mask_BT is None else jnp.asarray(mask_BT, bool)
    return _logits(checkpoint.model, checkpoint.params, tokens_BT, mask_BT)


def causal_mask(mask_BT: jax.Array) -> jax.Array:
    """[B, T, T]: each position looks at itself and at real tokens before it."""
    T = mask_BT.shape[1]
    return jnp.tril(jnp.ones((T, T), bool)) & mask_BT[:, None, :]


def positions_from_mask(mask_BT: jax.Array) -> jax.Array:
    """Position of each token among its row's real ones, int32 [B, T]; 0 on padding before them."""
    return jnp.maximum(jnp.cumsum(mask_BT, axis=1) - 1, 0).astype(jnp.int32)


@jax.jit(static_argnums=0)
def _logits(model, params, tokens_BT, mask_BT):
    def forward(m):
        hidden_BTD, _ = m(tokens_BT, positions_from_mask(mask_BT), causal_mask(mask_BT))
        return m.unembed(hidden_BTD)

    return model.apply({"params": params}, method=forward)
