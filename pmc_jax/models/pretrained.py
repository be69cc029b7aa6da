"""A Hugging Face checkpoint as one value: folder, hub id or GGUF file -> model, parameters, tokenizer; and back."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from pmc_jax.distributed import meshes, multihost
from pmc_jax.errors import UserError, first_line, telling_file_errors
from pmc_jax.models import Decoder, Family, ModelConfig, find_family, gguf, lora, weights
from pmc_jax.models.attention import causal_mask, positions_from_mask
from pmc_jax.models.tensor_files import Stored, find_tensors
from pmc_jax.settings.paths import expand
from pmc_jax.tracking.folders import FolderWriter

NEEDED = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model", "merges.txt"]
DTYPES = ("float32", "bfloat16", "float16")
SCRATCH = "scratch"  # the source of a model with fresh parameters


@dataclasses.dataclass(frozen=True)
class PretrainedModel:
    """A model with all that is needed to use it and to write it again.

    Attributes:
        model: Linen module.
        params: nested dict of arrays.
        config: the model's shape and switches.
        tokenizer: transformers' tokenizer.
        family: how its config and its weights are read.
        raw_config: `config.json` as read.
        generation_config: `generation_config.json` as read.
        end_tokens: ids that end an answer.
        source: the folder or hub id it came from.
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
        """The same with some attributes changed."""
        return dataclasses.replace(self, **changes)


def check_path(path: str) -> None:
    """UserError for what is neither a folder nor a file nor could be a hub id; nothing is read or fetched."""
    if not path:
        raise UserError(
            "model.path is empty: give a hub id or a folder, as --config.model.path=meta-llama/Llama-3.2-1B-Instruct"
        )
    if Path(path).is_file():
        return
    if path.endswith(".gguf"):
        raise UserError(f"model.path={path!r}: no such file")
    if not Path(path).is_dir() and (path.startswith((".", "/", "~")) or path.count("/") != 1):
        raise UserError(f"model.path={path!r}: no such folder or file, and not a hub id (owner/name)")


def find_folder(path: str) -> Path:
    """The local folder of a checkpoint; a hub id is downloaded (or found in the hub's cache)."""
    check_path(path)
    if Path(path).is_dir():
        return Path(path)
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(path, allow_patterns=NEEDED))
    except Exception as error:  # the hub client raises many kinds; each means that the checkpoint could not be had
        reason = first_line(error)
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


def check_whole(folder: Path) -> None:
    """UserError for a folder that holds an adapter and no model."""
    if (folder / "adapter_config.json").exists() and not (folder / "config.json").exists():
        base = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
        named, other = (base, base) if base else ("a model that it does not name", "that model")
        raise UserError(
            f"{folder}: an adapter of {named}, not a model; merge it into that model first, or load {other}"
        )


def load_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer; remote code is never run."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds for a broken or absent tokenizer
        raise UserError(f"{folder}: its tokenizer cannot be loaded: {first_line(error)}") from None


def find_end_tokens(raw: dict[str, Any], generation: dict[str, Any], tokenizer: Any) -> tuple[int, ...]:
    """Every id that any of config, generation config and tokenizer calls the end."""
    ends = set()
    for value in (raw.get("eos_token_id"), generation.get("eos_token_id"), tokenizer.eos_token_id):
        ends |= set(value if isinstance(value, list) else [value]) - {None}
    if not ends:
        raise UserError(
            "the checkpoint names no end token (eos_token_id) in config.json, generation_config.json or its tokenizer"
        )
    return tuple(sorted(ends))


def load(path: str | Path, dtype: str = "float32", mesh: Mesh | None = None, family: str = "") -> PretrainedModel:
    """Load a checkpoint from a local folder, by hub id, or from a GGUF file.

    Args:
        path: folder, "owner/name", or file.
        dtype: of the parameters, "float32", "bfloat16" or "float16".
        mesh: a (data, model) mesh; all devices on `data` when None.
        family: what to read it as: an architecture of FAMILIES, or "module:attribute" of your own Family; empty = by
            the `architectures` in its config.json.

    Returns:
        The model, its parameters sharded on the mesh, its tokenizer.

    Raises:
        UserError: in one line: a missing folder, an unsupported architecture or setting, tensors that do not fit.
    """
    if dtype not in DTYPES:
        raise UserError(f"model.dtype={dtype!r}: choose one of {', '.join(DTYPES)}")
    path = expand(path)
    if Path(path).is_file():
        source, file = Path(path), gguf.read(path)
        raw, generation = file.raw_config, file.generation_config
    else:
        source, file = find_folder(path), None
        check_whole(source)
        raw, generation = read_json(source / "config.json"), read_json(source / "generation_config.json", False)
    kind = find_family(raw, family)
    model = kind.make_model(raw)
    mesh = mesh or meshes.make_mesh()
    meshes.check_mesh(mesh, model.config.axis_sizes)
    tensors = file.tensors if file else find_tensors(source)
    params = weights.load_params(source, tensors, kind, model, mesh, dtype)
    tokenizer = file.tokenizer if file else load_tokenizer(source)
    ends = find_end_tokens(raw, generation, tokenizer)
    return PretrainedModel(model, params, model.config, tokenizer, kind, raw, generation, ends, str(path))


def create(
    raw_config: dict[str, Any],
    tokenizer: Any,
    seed: int,
    dtype: str = "float32",
    mesh: Mesh | None = None,
    family: str = "",
) -> PretrainedModel:
    """A model with fresh parameters.

    Args:
        raw_config: a `config.json` in Hugging Face's words.
        tokenizer: transformers' tokenizer.
        seed: of the parameters.
        dtype: of the parameters.
        mesh: a (data, model) mesh; all devices on `data` when None.
        family: as in `load`.
    """
    kind = find_family(raw_config, family)
    model = kind.make_model(raw_config)
    mesh = mesh or meshes.make_mesh()
    meshes.check_mesh(mesh, model.config.axis_sizes)
    params = weights.init_params(kind, model, mesh, seed, dtype)
    ends = find_end_tokens(raw_config, {}, tokenizer)
    generation = {key: raw_config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if key in raw_config}
    return PretrainedModel(model, params, model.config, tokenizer, kind, raw_config, generation, ends, SCRATCH)


def find_carried(checkpoint: PretrainedModel) -> dict[str, Stored]:
    """The tensors of the source that are not the decoder's, and go into an export as they are."""
    if not checkpoint.family.carried or checkpoint.source == SCRATCH:
        return {}
    tensors = find_tensors(find_folder(checkpoint.source))
    return {name: x for name, x in tensors.items() if name.startswith(checkpoint.family.carried)}


def export(checkpoint: PretrainedModel, folder: str | Path) -> Path:
    """Write what transformers and vLLM load: safetensors, config, generation config, tokenizer and chat template.

    Trained adapters are merged into the weights, and also stand alone in adapter/, as PEFT loads them.
    config.json comes last: without it nobody takes the folder for a checkpoint. An older export in its place is
    replaced; `pmc_jax_files.json` says what that is. All processes of a run call this, the first one writes.

    Args:
        checkpoint: what to write.
        folder: new, empty, or an older export.

    Returns:
        The folder's absolute path.

    Raises:
        UserError: the folder holds something else, or cannot be written. Nothing of it is lost.
    """
    folder = Path(expand(folder)).resolve()
    writer = FolderWriter(folder)

    def begin() -> None:
        if folder == Path(checkpoint.source).resolve():
            raise UserError(f"{folder}: is the checkpoint that this one was made from; choose another folder")
        writer.begin()

    def finish() -> None:
        write_companions(checkpoint, writer.partial)
        writer.finish(last=("config.json",))

    try:
        multihost.broadcast_from_primary(begin)
        carried = find_carried(checkpoint)
        with telling_file_errors(folder):
            weights.save_params(writer.partial, checkpoint.params, checkpoint.family, checkpoint.model, carried=carried)
        multihost.broadcast_from_primary(finish)
    except BaseException:
        if multihost.is_primary():
            writer.abandon()
        raise
    return folder


def write_companions(checkpoint: PretrainedModel, folder: Path) -> None:
    """Write all of a checkpoint but its weights. UserError where that fails, such as on a full disk."""
    dtype = str(jax.tree.leaves(checkpoint.params)[0].dtype)
    config = {k: v for k, v in checkpoint.raw_config.items() if k not in ("dtype", "torch_dtype")} | {
        "dtype": dtype,
        "torch_dtype": dtype,
    }
    with telling_file_errors(folder):
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        if checkpoint.generation_config:
            text = json.dumps(checkpoint.generation_config, indent=2) + "\n"
            (folder / "generation_config.json").write_text(text, encoding="utf-8")
        if checkpoint.family.carried and checkpoint.source != SCRATCH:
            for file in find_folder(checkpoint.source).glob("*processor_config.json"):
                shutil.copy(file, folder)
    try:
        checkpoint.tokenizer.save_pretrained(folder)
        if checkpoint.adapters:
            lora.save(folder / "adapter", *checkpoint.adapters, base=checkpoint.source)
    except Exception as error:  # the tokenizer and safetensors have kinds of their own for a full disk
        raise UserError(f"{folder}: cannot be written: {first_line(error)}") from None


def logits(checkpoint: PretrainedModel, tokens_BT: Any, mask_BT: Any = None) -> jax.Array:
    """Next-token logits.

    Args:
        checkpoint: the model.
        tokens_BT: int ids.
        mask_BT: True on real tokens; None = on all. Padding on either side gives the same values at real positions.

    Returns:
        [B, T, V] float32.
    """
    tokens_BT = jnp.asarray(tokens_BT, jnp.int32)
    mask_BT = jnp.ones(tokens_BT.shape, bool) if mask_BT is None else jnp.asarray(mask_BT, bool)
    return _logits(checkpoint.model, checkpoint.params, tokens_BT, mask_BT)


@jax.jit(static_argnums=0)
def _logits(model, params, tokens_BT, mask_BT):
    def forward(m):
        hidden_BTD, _ = m(tokens_BT, positions_from_mask(mask_BT), causal_mask(mask_BT))
        return m.unembed(hidden_BTD)

    return model.apply({"params": params}, method=forward)
