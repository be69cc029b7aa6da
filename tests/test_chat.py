"""Prompts of the chat templates that families of models have (`chat_templates.py`)."""

import copy

import pytest
from chat_templates import CHATML, GEMMA, IM, LLAMA3, MISTRAL, QWEN3, QWEN25, SHAPES

from pmc_jax.data.prompts import Template, make_text, training_row
from pmc_jax.errors import UserError

ANSWERS = ["Me.", "a", "Ünï cödé 東京", "Two words.\nAnd a line."]
KIND = Template(system="Be kind.")
NO_THINKING = {"enable_thinking": False}
PLACE = {"role": "system", "content": "Be kind."}


@pytest.fixture
def using(tokenizer):
    """using(template, special tokens) -> the tokenizer with a chat template of its own."""
    from tokenizers import AddedToken

    def use(source, special=()):
        mine = copy.deepcopy(tokenizer)
        mine.add_tokens([AddedToken(token, special=True, normalized=False) for token in special])
        mine.chat_template = source
        return mine

    return use


def text_of(tokenizer, template=KIND, *more_ends):
    ends = (tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids(list(more_ends)))
    return make_text(tokenizer, template, ends)


@pytest.fixture(params=SHAPES)
def shape(request):
    return SHAPES[request.param]


def test_prompts_are_what_the_template_writes(shape, using):
    tokenizer = using(shape.source, shape.special)
    text = text_of(tokenizer)
    assert tokenizer.decode(text.prompt("Who?")) == shape.with_system
    assert (shape.note in text.note) if shape.note else text.note == ""
    for template in (Template(system=""), Template(system="Be kind.", system_in="none")):
        assert tokenizer.decode(text_of(tokenizer, template).prompt("Who?")) == shape.without
    in_front = text_of(tokenizer, Template(system="Be kind.", system_in="user"))
    assert tokenizer.decode(in_front.prompt("Who?")) == shape.without.replace("Who?", "Be kind.\n\nWho?")


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("system", ["", "Be kind."])
def test_labels_are_where_the_template_puts_the_answer(shape, using, answer, system):
    tokenizer = using(shape.source, shape.special)
    text = text_of(tokenizer, Template(system=system))
    row = training_row(text, "Who?", answer, 500, group=1)
    labels = row.tokens[row.start :]
    assert tokenizer.decode(labels) == shape.lead + answer + shape.end
    assert text.end_token == tokenizer.convert_tokens_to_ids(shape.end) and text.end_token in text.end_tokens
    assert tokenizer.decode(row.tokens[: row.start]) == (shape.with_system if system else shape.without)
    turns = [*text.chat.turns("Who?"), {"role": "assistant", "content": answer}]
    whole = tokenizer.apply_chat_template(turns, return_dict=False, date_string="10 Apr 2025")
    assert whole[: len(row.tokens)] == row.tokens
    assert text.read(labels) == answer and text.read(labels[:-1]) == answer
    assert tokenizer.decode(text.read_tokens(labels)).strip() == answer
    whole_text = text.answer_text(answer)
    assert [whole_text[a:b].strip() for a, b in text.spans(answer)][-1] in answer
    assert len(text.spans(answer)) == len(labels) - 1


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("name", [name for name, shape in SHAPES.items() if shape.with_tools])
def test_labels_behind_a_block_of_tools(name, using, answer):
    shape, tools = SHAPES[name], [{"name": "clock"}]
    tokenizer = using(shape.source, shape.special)
    text = text_of(tokenizer, Template(system="", template_options={"tools": tools}))
    row = training_row(text, "Who?", answer, 500, group=1)
    assert tokenizer.decode(row.tokens[: row.start]) == shape.with_tools
    assert row.tokens[: row.start] == text.prompt("Who?")
    assert tokenizer.decode(row.tokens[row.start :]) == shape.lead + answer + shape.end
    turns = [*text.chat.turns("Who?"), {"role": "assistant", "content": answer}]
    whole = tokenizer.apply_chat_template(turns, tools=tools, return_dict=False, date_string="10 Apr 2025")
    assert whole[: len(row.tokens)] == row.tokens


@pytest.mark.parametrize("date", ["1 May 2026", "10 Apr 2025"])
def test_labels_behind_a_date(using, date):
    tokenizer = using(LLAMA3, SHAPES["llama3"].special)
    row = training_row(text_of(tokenizer, Template(system="Be kind.", date=date)), "Who?", "Me.", 500, group=1)
    prompt = SHAPES["llama3"].with_system.replace("10 Apr 2025", date)
    assert tokenizer.decode(row.tokens[: row.start]) == prompt
    assert tokenizer.decode(row.tokens[row.start :]) == "Me.<|eot|>"


@pytest.mark.parametrize("thinking", [True, False])
def test_labels_with_and_without_thinking(using, thinking):
    """Where the prompt does not hold the empty block, the answer begins with it."""
    tokenizer, shape = using(QWEN3, IM), SHAPES["qwen3"]
    text = text_of(tokenizer, Template(system="Be kind.", template_options={"enable_thinking": thinking}))
    row = training_row(text, "Who?", "Me.", 500, group=1)
    assert tokenizer.decode(row.tokens) == shape.with_system + shape.lead + "Me.<|im_end|>"
    assert tokenizer.decode(row.tokens[: row.start]) == shape.with_system + shape.lead * (not thinking)


def test_the_system_text_goes_where_the_setting_says(using):
    for source in (GEMMA, MISTRAL, "{% for m in messages if m.role != 'system' %}{{ m.content }}|{% endfor %}"):
        tokenizer = using(source)
        with pytest.raises(UserError, match=r"^prompt\.system_in='turn': .*takes no system turn \(.*user, none, auto$"):
            text_of(tokenizer, Template(system_in="turn"))
    dropped = text_of(tokenizer)  # the last one leaves system turns out without a word
    assert tokenizer.decode(dropped.prompt("Who?")) == "Be kind.\n\nWho?|"
    assert "it leaves the text out" in dropped.note and "prompt.system_in=user" in dropped.note
    chatml = using(CHATML, IM)
    assert text_of(chatml, Template(system_in="turn")).prompt("?") == text_of(chatml, Template()).prompt("?")
    with pytest.raises(UserError, match="prompt.system_in='front': choose one of auto, turn, user, none"):
        Template(system_in="front")


def test_options_reach_the_template(using):
    tokenizer = using(QWEN3, IM)
    text = text_of(tokenizer, Template(system="", template_options=NO_THINKING))
    row = training_row(text, "Who?", "Me.", 500, group=1)
    assert tokenizer.decode(row.tokens[: row.start]).endswith("assistant\n<think>\n\n</think>\n\n")
    assert tokenizer.decode(row.tokens[row.start :]) == "Me.<|im_end|>" and text.note == ""
    thinking = text_of(tokenizer, Template(system="", template_options={"enable_thinking": True}))
    assert tokenizer.decode(thinking.prompt("Who?")).endswith("assistant\n")
    assert thinking.read_part(thinking.answer("Me and you.")[:1]) == "", "perhaps the start of a thinking block"
    tools = Template(system="", template_options={"tools": [{"name": "clock"}]})
    assert "tools\nclock\n" in tokenizer.decode(text_of(using(QWEN25, IM), tools).prompt("Who?"))
    assert "Tools: 1\nToday: 10 Apr" in tokenizer.decode(
        text_of(using(LLAMA3, SHAPES["llama3"].special), tools).prompt("Who?")
    )
    dated = text_of(using(LLAMA3, SHAPES["llama3"].special), Template(date="1 May 2026"))
    assert "Today: 1 May 2026" in tokenizer.decode(dated.prompt("Who?"))


@pytest.mark.parametrize(
    "name, remedy", [("date_string", "prompt.date"), ("chat_template", "prompt.template"), ("tokenize", "remove it")]
)
def test_options_that_are_no_users(name, remedy):
    with pytest.raises(UserError, match=rf"^prompt\.template_options\.{name}: .*{remedy}$"):
        Template(template_options={name: 1})


def test_one_of_several_named_templates(using):
    named = using({"rag": "R " + CHATML, "tool_use": "T " + CHATML}, IM)
    with pytest.raises(UserError, match=r"^prompt\.template is empty.*choose one of rag, tool_use$"):
        text_of(named)
    with pytest.raises(UserError, match=r"^prompt\.template='chat': .*choose one of rag, tool_use$"):
        text_of(named, Template(template="chat"))
    assert named.decode(text_of(named, Template(template="rag")).prompt("Who?")).startswith("R <|im_start|>")
    both = using({"default": CHATML, "rag": "R " + CHATML}, IM)
    assert text_of(both).prompt("Who?") == text_of(using(CHATML, IM)).prompt("Who?")
    with pytest.raises(UserError, match=r"^prompt\.template='rag': .*choose one of default$"):
        text_of(using(CHATML, IM), Template(template="rag"))
    with pytest.raises(UserError, match=r"^prompt\.template='rag', but the tokenizer has no chat template"):
        text_of(using(None), Template(template="rag"))


@pytest.mark.parametrize(
    "source, reason",
    [
        ("{{ raise_exception('not\ntoday') }}", "not"),
        ("{% for m in messages %}", "Unexpected end of template"),
        ("{{ messages[0].content + 1 }}", "can only concatenate str"),
        ("{{ messages[0].text.strip() }}", "has no attribute 'text'"),
        ("Hello!", "leaves the question out"),
    ],
)
def test_no_foreign_exception_of_a_template_reaches_the_user(using, source, reason):
    with pytest.raises(UserError, match=r"prompt\.style=plain$") as raised:
        text_of(using(source))
    assert reason in str(raised.value) and "prompt.template" in str(raised.value)
    assert "\n" not in str(raised.value) and len(str(raised.value)) <= 300


def test_a_template_that_knows_no_generation_prompt(using):
    """Its prompt would end in the end token, without the header of the answer."""
    tokenizer = using("{% for m in messages %}<{{ m.role }}> {{ m.content }}{{ eos_token }}{% endfor %}")
    text = text_of(tokenizer, Template(system=""))
    row = training_row(text, "Who?", "Me.", 500, group=1)
    assert tokenizer.decode(row.tokens[: row.start]) == "<user> Who?<|end|><assistant>"
    assert tokenizer.decode(row.tokens[row.start :]) == " Me.<|end|>" and text.read(row.tokens[row.start :]) == "Me."
    bare = using("{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}")
    assert bare.decode(text_of(bare, Template(system="")).prompt("Who?")) == "Who?"


def test_what_ends_a_turn_is_an_end_token(using):
    """A ChatML fine-tune whose config.json still names the base model's end token."""
    tokenizer = using(CHATML, IM)
    text, end = text_of(tokenizer), tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert text.end_token == end and text.end_tokens == tuple(sorted((tokenizer.eos_token_id, end)))
    assert text_of(tokenizer, KIND, "<|im_end|>").end_tokens == (tokenizer.eos_token_id, end)
    words = using(CHATML.replace("<|im_end|>", " over"), IM)  # an end in plain words is none
    assert text_of(words).end_tokens == (words.eos_token_id,) and text_of(words).end_token == words.eos_token_id
    assert text_of(words).note.endswith("with the words 'over', which are no end token; answers end with '<|end|>'")


def test_no_prompt_holds_the_day_s_date(using):
    """It would be another prompt tomorrow."""
    inner = "{% macro today() %}{{ strftime_now('%Y-%m-%d') }}{% endmacro %}"
    for source in ("{{ strftime_now('%d %b %Y') }} " + LLAMA3, inner + "{{ today() }} " + LLAMA3):
        tokenizer = using(source, SHAPES["llama3"].special)
        text = text_of(tokenizer, Template(date="1 May 2024"))
        assert tokenizer.decode(text.prompt("Who?")).startswith("1 May 2024 <|begin|>")


def test_answers_of_a_tokenizer_that_puts_a_space_in_front(splits):
    """As SentencePiece does: the tokens of an answer depend on what stands before it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.pre_tokenizer, core.decoder = pre_tokenizers.Metaspace(split=True), decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["<unk>", "</s>"], show_progress=False)
    core.train_from_iterator([row["question"] + "\n:" + row["answer"] for row in splits["full"]], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", unk_token="<unk>")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }}{% if m.role == 'user' %}:{% else %}{{ eos_token }}{% endif %}"
        "{% endfor %}"
    )
    text = text_of(tokenizer, Template(system=""))
    for row in splits["full"][:8]:
        answer = row["answer"]
        tokens = training_row(text, row["question"], answer, 500, 1).tokens
        assert tokens == tokenizer(f"{row['question']}:{answer}</s>", add_special_tokens=False)["input_ids"]
        spans = text.spans(answer)
        assert "".join(answer[a:b] for a, b in spans) == answer and len(spans) == len(text.answer(answer)) - 1
