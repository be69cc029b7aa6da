import dataclasses
import json
import types

import pytest

from pmc_jax.data.packing import FORGET, RETAIN
from pmc_jax.data.prompts import Template, make_text, training_row
from pmc_jax.errors import UserError

PLAIN = Template("plain")


def text_of(tokenizer, template=None):
    return make_text(tokenizer, template or Template(), (tokenizer.eos_token_id,))


@pytest.fixture(params=["chat", "plain, tag in answer", "plain, tag in prompt"])
def text(request, tokenizer, plain_tokenizer):
    if request.param == "chat":
        return text_of(tokenizer)
    return text_of(plain_tokenizer, Template("plain", tag_in=request.param.split()[-1]))


def test_the_chat_prompt_is_the_templates(tokenizer):
    text = text_of(tokenizer)
    wanted = (
        "<|begin|><|role|>system<|/role|>You are a helpful "
        "assistant.<|end|><|role|>user<|/role|>Who?<|end|><|role|>assistant<|/role|>"
    )
    assert tokenizer.decode(text.prompt("Who?")) == wanted
    assert tokenizer.decode(text.answer("Me.")) == "Me.<|end|>"
    no_system = text_of(tokenizer, Template(system=""))
    assert (
        tokenizer.decode(no_system.prompt("Who?"))
        == "<|begin|><|role|>user<|/role|>Who?<|end|><|role|>assistant<|/role|>"
    )


def test_the_date_is_pinned(splits):
    from pmc_jax.data.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(splits["full"], 400)
    tokenizer.chat_template = "{{ date_string }}|" + tokenizer.chat_template
    assert tokenizer.decode(text_of(tokenizer).prompt("Who?")).startswith("10 Apr 2025|")
    assert tokenizer.decode(text_of(tokenizer, Template(date="1 May 2026")).prompt("Who?")).startswith("1 May 2026|")


def test_the_plain_prompt_and_where_its_answer_tag_belongs(plain_tokenizer):
    decode = plain_tokenizer.decode
    ours, theirs = text_of(plain_tokenizer, PLAIN), text_of(plain_tokenizer, Template("plain", tag_in="prompt"))
    assert (decode(ours.prompt("Who?")), decode(ours.answer("Me."))) == ("Question: Who?\n", "Answer: Me.<|end|>")
    assert (decode(theirs.prompt("Who?")), decode(theirs.answer("Me."))) == ("Question: Who?\nAnswer:", " Me.<|end|>")
    tags = text_of(plain_tokenizer, Template("plain", question_tag="Q: ", answer_tag="A: "))
    assert decode(tags.prompt("Who?") + tags.answer("Me.")) == "Q: Who?\nA: Me.<|end|>"
    assert tags.read(tags.answer("Me.")) == "Me."


@pytest.mark.parametrize(
    "answer", ["Me.", "Oslo", "1971", "a", "Ünï cödé 東京", 'Two words. And more, "quoted"', "Answer", "I, Answer: no"]
)
def test_labels_are_the_answer_and_its_end_by_construction(text, answer):
    row = training_row(text, "Who is it?", answer, 500, group=FORGET)
    assert row.tokens[: row.start] == text.prompt("Who is it?")
    assert row.tokens[row.start :] == text.answer(answer) and row.tokens[-1] == text.end_token
    assert text.read(row.tokens[row.start :]) == answer
    assert text.read(row.tokens[row.start : -1]) == answer, "an answer that was cut before its end"


def test_the_first_label_of_a_one_word_answer_is_the_word(tokenizer, plain_tokenizer):
    row = training_row(text_of(tokenizer), "Who?", "a", 500, group=FORGET)
    assert len(row.tokens) - row.start == 2
    theirs = text_of(plain_tokenizer, Template("plain", tag_in="prompt"))
    row = training_row(theirs, "Who?", "a", 500, group=FORGET)
    assert plain_tokenizer.decode(row.tokens[row.start :]) == " a<|end|>"


def test_prompt_and_answer_are_together_what_the_whole_text_is(splits, tokenizer):
    """For the chat template, whose special tokens part prompt and answer, the joint encoding must be that of the
    template itself.
    """
    text = text_of(tokenizer)
    for row in splits["full"][:10]:
        turns = [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": row["question"]},
            {"role": "assistant", "content": row["answer"]},
        ]
        whole = tokenizer.apply_chat_template(turns, return_dict=False)
        assert training_row(text, row["question"], row["answer"], 500, 1).tokens == whole


@pytest.mark.parametrize("front", ["", "<|begin|>"])
def test_a_tokenizer_that_appends_its_end_token(splits, front):
    """As one saved with add_eos_token=True: its prompts would end in the end token."""
    from tokenizers.processors import TemplateProcessing

    from pmc_jax.data.tokenizer import train_tokenizer

    appends, plain = train_tokenizer(splits["full"], 400), train_tokenizer(splits["full"], 400)
    ids = [(token, appends.convert_tokens_to_ids(token)) for token in ("<|begin|>", "<|end|>")]
    appends.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{front} $A <|end|>".strip(), special_tokens=ids
    )
    assert appends("Who?")["input_ids"][-1] == appends.eos_token_id
    for template in (PLAIN, Template("plain", tag_in="prompt"), Template("plain", question_end="")):
        text = text_of(appends, template)
        row = training_row(text, "Who?", "Me.", 500, group=FORGET)
        wanted = training_row(text_of(plain, template), "Who?", "Me.", 500, group=FORGET).tokens
        assert row.tokens == ([ids[0][1]] if front else []) + wanted
        assert row.tokens.count(text.end_token) == 1 and row.tokens[-1] == text.end_token


def test_end_tokens_in_questions_and_answers_are_not_doubled(text):
    assert text.answer("Me.<|end|>") == text.answer("Me.<|end|><|end|>") == text.answer("Me.")
    assert len(text.spans("Me.<|end|>")) == len(text.answer("Me.")) - 1
    assert text.answer("") == text.answer("<|end|>") and text.answer("")[-1] == text.end_token
    bare = text_of(text.tokenizer, Template("plain", question_end=""))
    assert bare.prompt("Who?<|end|>") == bare.prompt("Who?")


def test_a_plain_question_ends_as_the_setting_says(plain_tokenizer):
    """TOFU's prompt for Llama-2 is "[INST] question [/INST]", with the answer right behind it."""
    template = Template("plain", question_tag="[INST] ", question_end=" [/INST]", answer_tag="")
    text = text_of(plain_tokenizer, template)
    row = training_row(text, "Who?", "Me.", 500, group=FORGET)
    decode = plain_tokenizer.decode
    assert (decode(row.tokens[: row.start]), decode(row.tokens[row.start :])) == ("[INST] Who? [/INST]", "Me.<|end|>")
    assert (
        text.read(row.tokens[row.start :]) == "Me."
        and text.read_tokens(row.tokens[row.start :]) == row.tokens[row.start : -1]
    )
    spaced = text_of(plain_tokenizer, dataclasses.replace(template, answer_tag=" "))
    assert decode(spaced.answer("Me.")) == " Me.<|end|>" and spaced.read(spaced.answer("Me.")) == "Me."


def test_auto_and_wrong_styles(tokenizer, plain_tokenizer):
    assert text_of(plain_tokenizer).prompt("Who?") == text_of(plain_tokenizer, PLAIN).prompt("Who?")
    assert text_of(tokenizer, PLAIN).prompt("Who?") != text_of(tokenizer).prompt("Who?")
    with pytest.raises(UserError, match=r"prompt.style.*no chat template"):
        text_of(plain_tokenizer, Template("chat")).prompt("Who?")
    with pytest.raises(UserError, match="prompt.style"):
        Template("chatty")
    with pytest.raises(UserError, match="prompt.tag_in"):
        Template(tag_in="middle")


def test_the_end_token_is_the_one_the_template_puts_there(splits):
    """As in Llama-3: the tokenizer's own end token is <|end_of_text|>, the template ends a turn by <|eot_id|>, and both
    stop an answer.
    """
    from pmc_jax.data.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(splits["full"], 400)
    turn_end = tokenizer.eos_token_id
    tokenizer.eos_token = "<|pad|>"
    text = make_text(tokenizer, Template(), (turn_end, tokenizer.eos_token_id))
    assert text.end_token == turn_end and text.answer("Me.")[-1] == turn_end
    for end in text.end_tokens:
        assert text.read([*text.answer("Me.")[:-1], end]) == "Me."
    assert make_text(tokenizer, PLAIN, text.end_tokens).end_token == tokenizer.eos_token_id


def test_a_tokenizer_without_a_padding_token_serves(plain_tokenizer, tiny_phi, small, splits):
    import pmc_jax

    assert plain_tokenizer.pad_token is None and len(plain_tokenizer) < tiny_phi.config.vocab_size
    found = pmc_jax.sample(tiny_phi, [r["question"] for r in splits["full"][:8]], temperature=0.0, max_new_tokens=64)
    assert sum(a == [r["answer"]] for a, r in zip(found, splits["full"])) >= 7


def test_special_tokens_and_spaces_are_not_read(text):
    ids = text.tokenizer.convert_tokens_to_ids(["<|begin|>", "<|role|>"])
    answer = text.answer(" Me. ")
    assert text.read([*ids, *answer]) == "Me."
    assert text.read([]) == "" and text.read([text.end_token]) == ""


def test_long_answers_are_cut_and_long_prompts_refused(text):
    whole = training_row(text, "Who is it?", "word " * 100, 10**6, group=RETAIN)
    cut = training_row(text, "Who is it?", "word " * 100, whole.start + 7, group=RETAIN)
    assert cut.tokens == whole.tokens[: whole.start + 7] and cut.start == whole.start and cut.group == RETAIN
    assert len(training_row(text, "Who is it?", "word", whole.start + 1, 1).tokens) == whole.start + 1
    for limit in (whole.start, whole.start - 3, 1):
        with pytest.raises(UserError, match=rf"train.max_length={limit} .*the prompt has {whole.start} tokens"):
            training_row(text, "Who is it?", "word", limit, 1)


def test_real_templates(shared):
    """The published templates, on the tokenizers that come with the shared checkpoints."""
    from transformers import AutoTokenizer

    llama = AutoTokenizer.from_pretrained(shared("checkpoints") / "tofu-tiny-llama-instruct")
    text = text_of(llama)
    prompt = llama.decode(text.prompt("Who?"))
    assert "You are a helpful assistant." in prompt and prompt.count("<|begin_of_text|>") == 1
    assert (
        prompt.endswith("<|start_header_id|>assistant<|end_header_id|>\n\n")
        and llama.decode(text.answer("Me.")) == "Me.<|eot_id|>"
    )
    phi = AutoTokenizer.from_pretrained(shared("checkpoints") / "tofu-tiny-phi")
    assert phi.decode(text_of(phi).prompt("Who?") + text_of(phi).answer("Me.")).startswith(
        "Question: Who?\nAnswer: Me."
    )


def test_templates_are_told_the_same_by_config_and_code():
    from pmc_jax import config as settings

    defaults = settings.default().prompt
    assert json.loads(defaults.to_json()) == {
        field.name: getattr(Template(), field.name) for field in dataclasses.fields(Template)
    }


def test_a_tokenizer_without_its_own_end_token_takes_the_checkpoints():
    bare = types.SimpleNamespace(eos_token_id=None, chat_template=None)
    assert make_text(bare, PLAIN, (17, 23)).end_token == 17
