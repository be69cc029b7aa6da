"""The tokenizer in a GGUF file's metadata, as transformers' tokenizer; built with `tokenizers`, without torch."""

from pathlib import Path
from typing import Any

from pmc_jax.errors import UserError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # tokenizer.ggml.token_type
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
GPT4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{ENDING}|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{ENDING}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# tokenizer.ggml.pre -> the regular expressions that cut a text into words, one after another, as in llama.cpp.
CUTS = {
    "gpt-2": (GPT2,),
    "smollm": (r"\p{N}", GPT2),
    "llama-bpe": (LLAMA3,),
    "llama-v3": (LLAMA3,),
    "llama3": (LLAMA3,),
    "qwen2": (QWEN2,),
    "dbrx": (LLAMA3,),  # Phi-4
    "gpt-4o": (GPT4O,),  # Phi-4-mini
}
LLAMA3_NAMES = ("llama-bpe", "llama-v3", "llama3")


def make_tokenizer(file: Path, metadata: dict[str, Any]) -> Any:
    """The tokenizer of a GGUF file.

    Args:
        file: the GGUF file, for messages.
        metadata: its metadata, with the keys `tokenizer.ggml.*` and `tokenizer.chat_template`.

    Returns:
        A transformers tokenizer with the file's special tokens and chat template.

    Raises:
        UserError: for a kind of tokenizer that is not supported.
    """
    from transformers import PreTrainedTokenizerFast

    fields = {key.removeprefix("tokenizer.ggml."): value for key, value in metadata.items()}
    tokens, kind = fields.get("tokens"), fields.get("model")
    if kind not in ("gpt2", "llama") or not tokens:
        raise UserError(f"{file}: tokenizer.ggml.model {kind!r} is not supported; supported: 'gpt2', 'llama'")
    tokenizer = byte_level_bpe(file, fields) if kind == "gpt2" else sentencepiece_bpe(fields)
    architecture = metadata.get("general.architecture")
    strips = architecture == "phi3" and kind == "llama"  # as Phi-3's own tokenizer; the file does not say it
    add_added_tokens(tokenizer, tokens, fields.get("token_type") or [NORMAL] * len(tokens), strips)
    names = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
    ids = {short: fields.get(f"{name}_token_id") for name, short in names.items()}
    special = {f"{short}_token": tokens[i] for short, i in ids.items() if i is not None and i < len(tokens)}
    if fields.get("add_bos_token", kind == "llama" or fields.get("pre") in LLAMA3_NAMES) and "bos_token" in special:
        add_begin_token(tokenizer, special["bos_token"], ids["bos"])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=metadata.get("tokenizer.chat_template"),
        model_max_length=metadata.get(f"{architecture}.context_length"),
        clean_up_tokenization_spaces=False,
        **special,
    )


def byte_level_bpe(file: Path, fields: dict[str, Any]) -> Any:
    """Byte-level BPE with the file's merges, as in GPT-2, Llama 3 and SmolLM."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    cuts = CUTS.get(fields.get("pre"))
    if cuts is None:
        raise UserError(
            f"{file}: tokenizer.ggml.pre {fields.get('pre')!r} is not supported; supported: {', '.join(CUTS)}"
        )
    merges = [tuple(merge.split(" ", 1)) for merge in fields.get("merges") or []]
    vocabulary = {token: i for i, token in enumerate(fields["tokens"])}
    # Llama 3 takes a word that is in its vocabulary whole, whether or not merges lead to it.
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=fields["pre"] in LLAMA3_NAMES))
    if fields["pre"] == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    steps = [pre_tokenizers.Split(Regex(cut), "isolated") for cut in cuts]
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def sentencepiece_bpe(fields: dict[str, Any]) -> Any:
    """SentencePiece's BPE, as in Llama 1 and 2: the pair whose union has the best score is merged first."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    tokens, kinds = fields["tokens"], fields.get("token_type") or []
    vocabulary = {token: i for i, token in enumerate(tokens)}
    unknown = next((token for token, kind in zip(tokens, kinds) if kind == UNKNOWN), None)
    merges = score_merges(vocabulary, fields.get("scores") or [0.0] * len(tokens), kinds)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    prefix = [normalizers.Prepend("▁")] if fields.get("add_space_prefix", True) else []
    tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    return tokenizer


def score_merges(vocabulary: dict[str, int], scores: list[float], kinds: list[int]) -> list[tuple[str, str]]:
    """Every pair of tokens whose union is a token, the best score first; the shorter left part first among equals."""
    ranked = []
    for token, i in vocabulary.items():
        if kinds and kinds[i] not in (NORMAL, UNUSED):
            continue
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in vocabulary and right in vocabulary:
                ranked.append((-scores[i], i, cut, left, right))
    return [(left, right) for *_, left, right in sorted(ranked)]


def add_added_tokens(tokenizer: Any, tokens: list[str], kinds: list[int], strips: bool = False) -> None:
    """Tokens that are found in a text before anything else: control tokens (special) and user-defined ones.

    strips: they take the white space behind them too, all but unknown, begin and end of text.
    """
    from tokenizers import AddedToken

    def added(token: str, special: bool) -> Any:
        rstrip = strips and token not in ("<unk>", "<s>", "<|endoftext|>")
        return AddedToken(token, special=special, normalized=False, rstrip=rstrip)

    control = [token for token, kind in zip(tokens, kinds) if kind in (CONTROL, UNKNOWN)]
    tokenizer.add_special_tokens([added(token, True) for token in control])
    defined = [token for token, kind in zip(tokens, kinds) if kind == USER_DEFINED]
    tokenizer.add_tokens([added(token, False) for token in defined])


def add_begin_token(tokenizer: Any, token: str, number: int) -> None:
    """Put the begin token before every text, where special tokens are asked for."""
    from tokenizers import processors

    template = processors.TemplateProcessing(
        single=f"{token} $A", pair=f"{token} $A {token} $B", special_tokens=[(token, number)]
    )
    tokenizer.post_processor = template
