"""A Hugging Face checkpoint as one value: folder, hub id or GGUF file -> model, parameters, tokenizer; and back."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from pmc_jax.data.files import check_pointer
from pmc_jax.distributed import meshes, multihost
from pmc_jax.errors import UserError, first_line, telling_file_errors
from pmc_jax.models import Decoder, Family, ModelConfig, find_family, gguf, lora, probe, weights
from pmc_jax.models.attention import causal_mask, positions_from_mask
from pmc_jax.models.folder import check_path, check_whole, find_folder, read_json
from pmc_jax.models.fused_attention import usable_kind
from pmc_jax.models.tensor_files import Stored, find_tensors
from pmc_jax.models.tokenizer_files import load_tokenizer, write_tokenizer
from pmc_jax.settings.paths import expand
from pmc_jax.tracking.folders import FolderWriter

__all__ = ["check_path", "find_folder", "read_json"]  # what other modules take from here
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


def find_end_tokens(
    raw: dict[str, Any], generation: dict[str, Any], tokenizer: Any, vocab_size: int, source: Any
) -> tuple[int, ...]:
    """Every id that any of config, generation config and tokenizer calls the end."""
    ends: set[Any] = set()
    for value in (raw.get("eos_token_id"), generation.get("eos_token_id"), tokenizer.eos_token_id):
        ends |= set(map(_hashable, value if isinstance(value, list) else [value])) - {None}
    return probe.check_ends(ends, tokenizer, vocab_size, source)


def _hashable(value: Any) -> Any:
    return str(value) if isinstance(value, list | dict) else value


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
    if not isinstance(path, str | Path):
        raise UserError(f"load: the path is a {type(path).__name__}; give a folder, a hub id or a GGUF file")
    path = expand(path)
    if Path(path).is_file():
        check_pointer(Path(path))
        source, file = Path(path), gguf.read(path)
        raw, generation = file.raw_config, file.generation_config
    else:
        source, file = find_folder(path), None
        check_whole(source)
        raw, generation = read_json(source / "config.json"), read_json(source / "generation_config.json", False)
    probe.check_config(raw)
    kind = find_family(raw, family)
    model = probe.make_model(kind, raw)
    mesh = mesh or meshes.make_mesh()
    meshes.check_mesh(mesh, model.config.axis_sizes)
    tensors = file.tensors if file else find_tensors(source)
    if not file:
        model, raw, tensors = probe.read_head(kind, model, raw, tensors)
    model = model.suited(usable_kind(mesh, model.config))
    tokenizer = file.tokenizer if file else load_tokenizer(source)
    probe.check_tokenizer(tokenizer, model.config.vocab_size, source)
    ends = find_end_tokens(raw, generation, tokenizer, model.config.vocab_size, source)
    params = weights.load_params(source, tensors, kind, model, mesh, dtype)
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
    probe.check_config(raw_config)
    kind = find_family(raw_config, family)
    mesh = mesh or meshes.make_mesh()
    model = probe.make_model(kind, raw_config)
    meshes.check_mesh(mesh, model.config.axis_sizes)
    model = model.suited(usable_kind(mesh, model.config))
    probe.check_tokenizer(tokenizer, model.config.vocab_size, "model.scratch")
    ends = find_end_tokens(raw_config, {}, tokenizer, model.config.vocab_size, "model.scratch")
    params = weights.init_params(kind, model, mesh, seed, dtype)
    generation = {key: raw_config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if key in raw_config}
    return PretrainedModel(model, params, model.config, tokenizer, kind, raw_config, generation, ends, SCRATCH)


def check_checkpoint(value: Any) -> None:
    """UserError for what `load` did not give."""
    if not isinstance(value, PretrainedModel):
        raise UserError(f"checkpoint: a {type(value).__name__}; give what pmc_jax.load(folder_or_hub_id) returns")


def tokenizer_source(source: str) -> Path | None:
    """The folder that a checkpoint's tokenizer was loaded from; None where there is none, or no more."""
    if source == SCRATCH or Path(source).is_file():
        return None
    try:
        return find_folder(source)
    except UserError:  # deleted since
        return None


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
    check_checkpoint(checkpoint)
    if not isinstance(folder, str | Path) or not str(folder):
        raise UserError(f"export: the folder is {folder!r}; give a text or a path")
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
        write_tokenizer(checkpoint.tokenizer, tokenizer_source(checkpoint.source), folder)
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

    Raises:
        UserError: the ids are no rectangle of whole numbers in the vocabulary, or the mask is of another shape.
    """
    check_checkpoint(checkpoint)
    check_tokens(tokens_BT, mask_BT, checkpoint.config.vocab_size)
    tokens_BT = jnp.asarray(tokens_BT, jnp.int32)
    mask_BT = jnp.ones(tokens_BT.shape, bool) if mask_BT is None else jnp.asarray(mask_BT, bool)
    return _logits(checkpoint.model, checkpoint.params, tokens_BT, mask_BT)


def check_tokens(tokens_BT: Any, mask_BT: Any, vocab_size: int) -> None:
    """UserError for what are no token ids, [B, T], of the vocabulary: ids beyond it would be read as others."""
    if isinstance(tokens_BT, jax.core.Tracer) or isinstance(mask_BT, jax.core.Tracer):
        return
    try:
        ids_BT, shape = np.asarray(tokens_BT), np.shape(tokens_BT if mask_BT is None else mask_BT)
    except ValueError:
        raise UserError("logits: rows of different lengths; pad them, and give the mask of real tokens") from None
    if ids_BT.ndim != 2 or not ids_BT.size or ids_BT.dtype.kind not in "iu":
        raise UserError(
            f"logits: tokens of shape {ids_BT.shape} and kind {ids_BT.dtype}; give whole numbers, [rows, positions], "
            "such as [[1, 5, 7]]"
        )
    if ids_BT.min() < 0 or ids_BT.max() >= vocab_size:
        wrong = ids_BT[(ids_BT < 0) | (ids_BT >= vocab_size)][0]
        raise UserError(f"logits: token {wrong} is no id of the vocabulary; ids are 0 to {vocab_size - 1}")
    if shape != ids_BT.shape:
        raise UserError(f"logits: the mask has shape {shape}, the tokens {ids_BT.shape}; both are [rows, positions]")


@jax.jit(static_argnums=0)
def _logits(model, params, tokens_BT, mask_BT):
    def forward(m):
        hidden_BTD, _ = m(tokens_BT, positions_from_mask(mask_BT), causal_mask(mask_BT))
        return m.unembed(hidden_BTD)

    return model.apply({"params": params}, method=forward)
