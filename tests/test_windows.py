"""Raw text is cut into windows without losing a word, and its parts are tokenised as they are together."""

import json
import random

import pytest
from passages import passages

from pmc_jax import config as settings
from pmc_jax.data import files, questions, windows
from pmc_jax.errors import UserError

WORDS = [
    "storm",
    "harbour",
    "Ewald's",
    "nets,",
    "31",
    "e.g.",
    "—",
    "naïve",
    "Лес",
    "don't",
    '"so"',
    "x_y",
    "mine.\n\nThen",
]


def drawn_text(seed: int, words: int) -> str:
    drawn = random.Random(seed)
    return " ".join(drawn.choice(WORDS) + drawn.choice(["", "", "", "\n", "  "]) for _ in range(words))


@pytest.mark.parametrize("seed", range(12))
def test_bounds_cover_every_token(seed):
    drawn = random.Random(seed)
    for _ in range(200):
        tokens, prefix, length = drawn.randint(0, 300), drawn.randint(1, 64), drawn.randint(1, 64)
        bounds = windows.window_bounds(tokens, prefix, length)
        if tokens < 2:
            assert bounds == []
            continue
        continued = {i for _, middle, end in bounds for i in range(middle, end)}
        assert continued == set(range(bounds[0][1], tokens)) and bounds[0][0] == 0
        for begin, middle, end in bounds:
            assert 0 <= begin < middle < end <= tokens
            whole = tokens > prefix + length
            assert (middle - begin, end - middle) == (prefix, length) or not whole
        starts = [middle for _, middle, _ in bounds[:-1]]
        assert starts == [prefix + i * length for i in range(len(starts))]


@pytest.mark.parametrize("seed", range(8))
def test_windows_are_parts_of_the_text_and_read_back(tokenizer, seed):
    text, reader = drawn_text(seed, 150), windows.make_continuation(tokenizer, (tokenizer.eos_token_id,))
    cut = windows.cut_text(text, tokenizer, 16, 24)
    assert len(cut) > 3 and cut[-1][1] == text[-len(cut[-1][1]) :]
    for prefix, continuation in cut:
        assert prefix + continuation in text
        prompt, answer = reader.prompt(prefix), reader.answer(continuation)
        assert (len(prompt) <= 16 + 6 and len(answer) >= 24 - 1) or continuation is cut[-1][1]
        assert reader.read(answer) == continuation, "white space stays, and there is no end token to cut"
        assert tokenizer.eos_token_id not in answer
    joined = sum(reader.prompt(p) + reader.answer(c) == reader.prompt(p + c) for p, c in cut)
    assert joined == len(cut)


def test_sentencepiece_puts_no_second_space():
    """A tokenizer that puts a space before a text that stands alone."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    taught = Tokenizer(models.BPE(unk_token="<unk>"))
    taught.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", "</s>"], show_progress=False)
    taught.train_from_iterator(passages(10, 0), trainer)
    learnt = json.loads(taught.to_str())["model"]
    vocab = {piece: i for i, piece in enumerate([*learnt["vocab"], *(f"<0x{i:02X}>" for i in range(256))])}
    merges = [tuple(pair) for pair in learnt["merges"]]
    core = Tokenizer(models.BPE(vocab=vocab, merges=merges, byte_fallback=True, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(content=" ", left=1)]
    )
    pieces = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", unk_token="<unk>")
    reader = windows.make_continuation(pieces, (pieces.eos_token_id,))
    assert reader.context
    for text in passages(4, 1):
        for prefix, continuation in windows.cut_text(text, pieces, 12, 20):
            assert reader.prompt(prefix) + reader.answer(continuation) == reader.prompt(prefix + continuation)
            assert reader.read(reader.answer(continuation)) == continuation
    for text in ("ing on", " walked", "\n\nThen", "x"):
        assert reader.read(reader.answer(text)) == text


def test_text_without_spaces_is_cut_between_tokens(tokenizer):
    text = "森" * 30 + "林" * 30
    cut = windows.cut_text(text, tokenizer, 12, 20)
    assert len(cut) > 1 and all(p + c in text for p, c in cut)


def test_the_same_prefix_is_asked_once(tokenizer):
    text = passages(1, 0)[0]
    once = windows.cut_rows([{"text": text}], tokenizer, 16, 24)
    assert windows.cut_rows([{"text": text}, {"text": text}], tokenizer, 16, 24) == once
    assert windows.cut_rows(once, tokenizer, 16, 24) == once, "windows stay"
    assert {row["passage"] for row in once} == {0}


def test_files_of_raw_text(tmp_path):
    text = "First, a storm.\n\nThen: nothing | at, all."
    (tmp_path / "book.txt").write_text(text)
    assert files.read_passages(tmp_path / "book.txt") == [{"text": text}]
    (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    assert files.read_passages(tmp_path / "rows.jsonl") == [{"text": "one"}, {"text": "two"}]
    config = settings.default()
    config.data.forget_file, config.data.text_window = str(tmp_path / "book.txt"), 32
    assert questions.load_forget(config.data) == [{"text": text}]
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "asked.jsonl").write_text('{"question": "Who?"}\n')
    for name, words in {
        "empty.txt": "'text' is empty",
        "asked.jsonl": "'text' is missing",
        "no.txt": "no such file",
    }.items():
        config.data.forget_file = str(tmp_path / name)
        with pytest.raises(UserError, match=words):
            questions.load_forget(config.data)


def test_a_window_has_to_fit():
    config = settings.default()
    config.data.text_window, config.sample.max_new_tokens = 64, 136
    with pytest.raises(UserError, match="text_window"):
        settings.check(config)
