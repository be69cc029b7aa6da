"""A look at a checkpoint before it is used: whether config.json, weights and tokenizer agree with each other."""

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from pmc_jax.errors import UserError, few, first_line
from pmc_jax.models.decoder import Decoder
from pmc_jax.models.family import Family
from pmc_jax.models.tensor_files import Stored
from pmc_jax.tracking.progress import say_once

SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
SIZES += ("num_key_value_heads", "head_dim", "max_position_embeddings")
NUMBERS = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "rope_theta", "partial_rotary_factor")
LARGEST = {"num_hidden_layers": 10_000}  # a slip of the pen would take for ever
MEDIA = ("image_token", "audio_token", "video_token")  # stand for what is no text; a text model has no row for them
# Buffers that older checkpoints carry and that are computed here.
IGNORED = re.compile(r"rotary_emb\.(inv_freq|cos_cached|sin_cached)$|\.attn\.(bias|masked_bias)$")
# What stands beside a quantised matrix: AWQ and GPTQ, bitsandbytes, compressed-tensors and FP8.
QUANTISED = re.compile(
    r"\.(qweight|qzeros|g_idx|SCB)$|absmax|quant_map|quant_state|weight_(packed|scale|shape)|_scale_inv$"
)
ROWS_COMPARED = 4096  # rows of two matrices that are in memory at once


def check_config(raw: dict[str, Any]) -> None:
    """UserError for a value in config.json that is of another kind than all that read it expect."""
    if not isinstance(raw.get("architectures") or [], list):
        raise UserError("config.json: architectures must be a list, as ['LlamaForCausalLM']")
    if not isinstance(raw.get("quantization_config") or {}, dict):
        raise UserError("config.json: quantization_config must be an object; give the checkpoint before quantising")
    tied = raw.get("tie_word_embeddings")
    if tied is not None and not isinstance(tied, bool):
        raise UserError(f"config.json: tie_word_embeddings={tied!r}: must be true or false")
    ends = raw.get("eos_token_id")
    for end in ends if isinstance(ends, list) else [ends]:
        if end is not None and type(end) is not int:
            raise UserError(f"config.json: eos_token_id={end!r}: must be a token's id, a whole number")
    nested = [raw["text_config"]] if isinstance(raw.get("text_config"), dict) else []
    for values in (raw, *nested):
        for key in SIZES:
            value, largest = values.get(key), LARGEST.get(key, 2**31)
            if value is not None and not (type(value) is int and 1 <= value <= largest):
                raise UserError(f"config.json: {key}={value!r}: must be a whole number from 1 to {largest}")
        for key in NUMBERS:
            value = values.get(key)
            if value is not None and (not isinstance(value, int | float) or not math.isfinite(value)):
                raise UserError(f"config.json: {key}={value!r}: must be a number")


def make_model(family: Family, raw: dict[str, Any]) -> Decoder:
    """The model of a config.json. UserError where it cannot be made, whatever is in the file."""
    try:
        return family.make_model(raw)
    except UserError:
        raise
    except Exception as error:  # values of any kind may stand in a config.json
        what = f"{type(error).__name__}: {first_line(error)[:120]}"
        raise UserError(f"config.json: cannot be read as a model's ({what}); take the original file again") from None


def read_head(
    family: Family, model: Decoder, raw: dict[str, Any], tensors: dict[str, Stored]
) -> tuple[Decoder, dict[str, Any], dict[str, Stored]]:
    """What embedding and head are where config.json says that they are one: as transformers 5 reads it.

    A head of its own in the file, with other numbers, is the head. A head alone is the embedding too.

    Args:
        family: names the two tensors.
        model: of config.json.
        raw: config.json.
        tensors: of the file.

    Returns:
        Model, config.json and tensors that agree.
    """
    names = {path: name for name, path, _ in family.weights}
    embed, head = names.get("embed", ""), names.get("head", "")
    if not model.config.tied_head or head not in tensors:
        return model, raw, tensors
    if embed not in tensors:
        return model, raw, {k: v for k, v in tensors.items() if k != head} | {embed: tensors[head].called(head)}
    if same_numbers(tensors[embed].called(embed), tensors[head].called(head)):
        return model, raw, tensors
    raw = raw | {"tie_word_embeddings": False}
    if isinstance(raw.get("text_config"), dict):
        raw = raw | {"text_config": raw["text_config"] | {"tie_word_embeddings": False}}
    return model.clone(config=dataclasses.replace(model.config, tied_head=False)), raw, tensors


def same_numbers(one: Stored, other: Stored) -> bool:
    """Whether two matrices in files hold the same numbers."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    with one.open("") as a, other.open("") as b:
        rows = one.shape[0]  # a slice must end where the matrix does
        parts = [slice(start, min(start + ROWS_COMPARED, rows)) for start in range(0, rows, ROWS_COMPARED)]
        return all(np.array_equal(a[part], b[part]) for part in parts)


def check_names(
    files: dict[str, Any], shapes: dict[str, tuple[int, ...]], tied_head: bool, carried: tuple[str, ...], folder: Path
) -> None:
    """UserError that names missing, extra and mis-shaped tensors.

    Args:
        files: the tensors that are there, by name.
        shapes: of those that the model needs.
        tied_head: a head is the embedding's copy.
        carried: beginnings of names to pass over.
        folder: for the message.
    """
    missing = sorted(shapes.keys() - files.keys())
    extra = sorted(
        n
        for n in files.keys() - shapes.keys()
        if not IGNORED.search(n) and not n.startswith(carried) and not (tied_head and n.endswith("lm_head.weight"))
    )
    misshaped = [
        f"{n} is {files[n].shape}, config.json says {shape}"
        for n, shape in sorted(shapes.items())
        if n in files and files[n].shape != shape
    ]
    quantised = next((n for n in extra if QUANTISED.search(n)), "")
    if quantised:
        raise UserError(
            f"{folder}: quantised weights ({quantised}), which cannot be trained; give the float32, bfloat16 or "
            "float16 checkpoint that it was made from"
        )
    problems = [f"missing: {few(missing)}"] * bool(missing) + [f"not in the model: {few(extra, 2)}"] * bool(extra)
    problems += [f"wrong shape: {few(misshaped, 2)}"] * bool(misshaped)
    if problems:
        raise UserError(f"{folder}: tensors do not fit config.json: {' | '.join(problems)}")


def check_tokenizer(tokenizer: Any, vocab_size: int, source: Any) -> None:
    """UserError for a tokenizer with ids that the embedding has no row for.

    Such ids would be read as the last row's. Tokens for pictures and sounds are let pass: no text is made of them.

    Args:
        tokenizer: a transformers tokenizer.
        vocab_size: rows of the embedding.
        source: the checkpoint's folder, for the message.
    """
    media = {getattr(tokenizer, name, None) for name in MEDIA}
    beyond = sorted((i, token) for token, i in tokenizer.get_vocab().items() if i >= vocab_size and token not in media)
    if beyond:
        named = few((f"{token!r} = {i}" for i, token in beyond), 3)
        raise UserError(
            f"{source}: its tokenizer has ids that the embedding of {vocab_size} rows lacks: {named}; resize the "
            "embedding (resize_token_embeddings), or take the original tokenizer"
        )


def check_ends(ends: set[Any], tokenizer: Any, vocab_size: int, source: Any) -> tuple[int, ...]:
    """The end tokens in order. One that is a piece of ordinary text is told of: answers are cut at it.

    Raises:
        UserError: there is none, or one is no id of the vocabulary.
    """
    wrong = [end for end in ends if type(end) is not int or not 0 <= end < vocab_size]
    if wrong:
        raise UserError(
            f"{source}: eos_token_id={wrong[0]!r} in config.json or generation_config.json is no id of the vocabulary; "
            f"ids are 0 to {vocab_size - 1}"
        )
    if not ends:
        raise UserError(
            "the checkpoint names no end token (eos_token_id) in config.json, generation_config.json or its tokenizer"
        )
    special, own = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}, tokenizer.eos_token_id
    ordinary = sorted(end for end in ends if own is not None and end not in special)
    if ordinary:
        text = tokenizer.convert_ids_to_tokens(ordinary[0])
        say_once(
            f"{source}: eos_token_id={ordinary[0]} in config.json or generation_config.json is the ordinary token "
            f"{text!r}: answers end at it; the tokenizer's own end token is {own} = {tokenizer.eos_token!r}"
        )
    return tuple(sorted(ends))
