"""Answers read on piece by piece, with tokenizers of every kind."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from pmc_jax.data.pieces import Pieces
from pmc_jax.data.prompts import Template, make_text
from pmc_jax.methods.rouge import rouge_tokens
from pmc_jax.methods.scoring import make_scorer
from pmc_jax.methods.similarity import stemmed_words

REFERENCE = "The author didn't sing, she was born in Ankara (Turkey) and writes novels of the sea."
WORDS = [
    *REFERENCE.split(),
    "n't",
    "do",
    "n",
    "n'",
    ".",
    ",",
    "'",
    "é",
    "日本 語",
    "Café.",
    "🙂",
    "\n",
    "  ",
    "won't",
    "s",
]
SPECIAL = ["<unk>", "<end>"]


def trained(model, trainer, **parts):
    tokenizer = Tokenizer(model)
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    tokenizer.train_from_iterator([" ".join(WORDS), REFERENCE] * 3, trainer)
    return tokenizer


def byte_level():
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=SPECIAL, initial_alphabet=alphabet)
    parts = dict(pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=False), decoder=decoders.ByteLevel())
    return trained(models.BPE(), trainer, **parts), False


def sentencepiece():
    as_bytes = [f"<0x{i:02X}>" for i in range(256)]
    model = models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=SPECIAL + as_bytes, limit_alphabet=30)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    before = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return trained(model, trainer, normalizer=before, decoder=decoders.Sequence(steps)), False


def whole_words():
    trainer = trainers.WordLevelTrainer(special_tokens=SPECIAL)
    return trained(models.WordLevel(unk_token="<unk>"), trainer, pre_tokenizer=pre_tokenizers.WhitespaceSplit()), False


def word_pieces():
    """Spaces are cleaned up: "do n't" is read as "don't"."""
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=["[UNK]", *SPECIAL])
    parts = dict(pre_tokenizer=pre_tokenizers.BertPreTokenizer(), decoder=decoders.WordPiece(cleanup=True))
    return trained(models.WordPiece(unk_token="[UNK]"), trainer, **parts), True


@pytest.fixture(scope="module", params=[byte_level, sentencepiece, whole_words, word_pieces], ids=lambda f: f.__name__)
def text(request):
    tokenizer, cleans = request.param()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", unk_token="<unk>", clean_up_tokenization_spaces=cleans
    )
    return make_text(wrapped, Template(style="plain", tag_in="prompt"), (wrapped.eos_token_id,))


@pytest.mark.parametrize("units", [rouge_tokens, lambda text: sorted(stemmed_words(text, singles=True))])
@settings(max_examples=100)
@given(drawn=st.data())
def test_pieces_are_the_whole(text, units, drawn):
    """Of any token ids, those that no text would have among them: the model may draw them."""
    ids = st.integers(2, len(text.tokenizer) - 1)
    tokens = drawn.draw(st.lists(ids, min_size=2, max_size=40))
    pieces, start, read = Pieces(text, units), 0, []
    for end in range(1, len(tokens)):
        if (cut := pieces.last_cut(tokens[:end], start)) > start:
            read += pieces.read(tokens[start:cut])
            start = cut
        whole = units(text.tokenizer.decode(tokens[:end], skip_special_tokens=True))
        assert set(read) <= set(whole) and (units is not rouge_tokens or read == whole[: len(read)])
    read += pieces.read(tokens[start:])
    whole = units(text.tokenizer.decode(tokens, skip_special_tokens=True))
    assert read == whole if units is rouge_tokens else set(read) == set(whole)


@settings(max_examples=60)
@example("The n't")
@example("The n ' there")
@example("the won ' the")
@given(st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join))
def test_no_bound_is_too_high(text, answer):
    scorer = make_scorer("rouge_l_recall", [""], [REFERENCE], text)
    tokens, part = text.answer(answer), None
    score, beginning = scorer.whole(0, tokens), 0.0
    for n in range(1, len(tokens)):
        part = scorer.read_on(0, tokens[:n], part)
        assert beginning <= part.score <= score
        beginning = part.score
    assert scorer.whole(0, tokens, part) == score == scorer.scores([[tokens]])[1][0, 0]
