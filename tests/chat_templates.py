"""Chat templates of the shapes that the families of models have, in few words, and what they write."""

from typing import NamedTuple

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% set given = messages[0].role == 'system' %}"
    "<|head|>system<|/head|>\n\n{% if tools %}Tools: {{ tools | length }}\n{% endif %}"
    "Today: {{ date_string }}\n\n{{ messages[0].content | trim if given else '' }}<|eot|>"
    "{% for m in messages %}{% if m.role != 'system' %}"
    "<|head|>{{ m.role }}<|/head|>\n\n{{ m.content | trim }}<|eot|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|head|>assistant<|/head|>\n\n{% endif %}"
)
QWEN25 = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nI am a model.<|im_end|>\n{% endif %}"
    "{% if tools %}<|im_start|>tools\n{% for t in tools %}{{ t.name }}\n{% endfor %}<|im_end|>\n{% endif %}" + CHATML
)
QWEN3 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate user/assistant') }}{% endif %}"
    "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}{{ eos_token }}{% endif %}"
    "{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
PHI3 = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end_turn|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
OLMO2 = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}]\n{{ m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% else %}{{ '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]\n{% endif %}"
)
# Mistral Small's: a system block of its own, and tools in front of the last question.
MISTRAL_SMALL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}[SYS]{{ m.content }}[/SYS]"
    "{% elif m.role == 'user' %}{% if tools %}[TOOLS]{% for t in tools %}{{ t.name }}{% endfor %}[/TOOLS]{% endif %}"
    "[INST]{{ m.content }}[/INST]{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
GEMMA3 = (
    "{{ bos_token }}{% set first = '' %}{% set turns = messages %}{% if messages[0].role == 'system' %}"
    "{% set first = messages[0].content + '\n\n' %}{% set turns = messages[1:] %}{% endif %}"
    "{% for m in turns %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ first if loop.first else '' }}{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
PHI4 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}<|im_sep|>{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif %}"
)
# The markers of roles are plain words there, and eos ends every turn.
ZEPHYR = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


class Shape(NamedTuple):
    """A template and what it should write for the system text "Be kind." and the question "Who?".

    Attributes:
        source: the template.
        special: its control tokens, beside those of the tokenizer (<|begin|> and <|end|>, which is eos).
        end: the token after an answer.
        with_system: the prompt.
        without: the prompt without a system text.
        lead: what comes between prompt and answer.
        note: a part of what the user is told, empty = nothing.
        with_tools: the prompt with a tool that is called "clock" and no system text; empty = it takes no tools.
    """

    source: str
    special: tuple[str, ...]
    end: str
    with_system: str
    without: str
    lead: str = ""
    note: str = ""
    with_tools: str = ""


IM, B, DATE = ("<|im_start|>", "<|im_end|>"), "<|begin|>", "Today: 10 Apr 2025\n\n"
IM_SYSTEM = "<|im_start|>system\nBe kind.<|im_end|>\n"
IM_ASK = "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n"
LLAMA_ASK = "<|eot|><|head|>user<|/head|>\n\nWho?<|eot|><|head|>assistant<|/head|>\n\n"
LLAMA_SYSTEM = f"{B}<|head|>system<|/head|>\n\n{DATE}"
GEMMA_ASK = "<end_of_turn>\n<start_of_turn>model\n"
SHAPES = {
    "llama3": Shape(
        LLAMA3,
        ("<|head|>", "<|/head|>", "<|eot|>"),
        "<|eot|>",
        f"{LLAMA_SYSTEM}Be kind.{LLAMA_ASK}",
        LLAMA_SYSTEM + LLAMA_ASK,
        with_tools=f"{B}<|head|>system<|/head|>\n\nTools: 1\n{DATE}{LLAMA_ASK}",
    ),
    "qwen2.5": Shape(
        QWEN25,
        IM,
        "<|im_end|>",
        IM_SYSTEM + IM_ASK,
        f"<|im_start|>system\nI am a model.<|im_end|>\n{IM_ASK}",
        with_tools=f"<|im_start|>system\nI am a model.<|im_end|>\n<|im_start|>tools\nclock\n<|im_end|>\n{IM_ASK}",
    ),
    "qwen3": Shape(
        QWEN3,
        IM,
        "<|im_end|>",
        IM_SYSTEM + IM_ASK,
        IM_ASK,
        "<think>\n\n</think>\n\n",
        "prompt.template_options.enable_thinking=False avoids it",
    ),
    "mistral": Shape(
        MISTRAL,
        ("[INST]", "[/INST]"),
        "<|end|>",
        f"{B}[INST] Be kind.\n\nWho? [/INST]",
        f"{B}[INST] Who? [/INST]",
        " ",
        "no system turn (Roles must alternate user/assistant)",
    ),
    "gemma": Shape(
        GEMMA,
        ("<start_of_turn>", "<end_of_turn>"),
        "<end_of_turn>",
        f"{B}<start_of_turn>user\nBe kind.\n\nWho?{GEMMA_ASK}",
        f"{B}<start_of_turn>user\nWho?{GEMMA_ASK}",
        note="no system turn (System role not supported)",
    ),
    "phi3": Shape(
        PHI3,
        ("<|system|>", "<|user|>", "<|assistant|>", "<|end_turn|>"),
        "<|end_turn|>",
        "<|system|>\nBe kind.<|end_turn|>\n<|user|>\nWho?<|end_turn|>\n<|assistant|>\n",
        "<|user|>\nWho?<|end_turn|>\n<|assistant|>\n",
    ),
    "olmo2": Shape(
        OLMO2, (), "<|end|>", f"{B}[system]\nBe kind.\n[user]\nWho?\n[assistant]\n", f"{B}[user]\nWho?\n[assistant]\n"
    ),
    "mistral-small": Shape(
        MISTRAL_SMALL,
        ("[SYS]", "[/SYS]", "[INST]", "[/INST]", "[TOOLS]", "[/TOOLS]"),
        "<|end|>",
        f"{B}[SYS]Be kind.[/SYS][INST]Who?[/INST]",
        f"{B}[INST]Who?[/INST]",
        with_tools=f"{B}[TOOLS]clock[/TOOLS][INST]Who?[/INST]",
    ),
    "gemma3": Shape(
        GEMMA3,
        ("<start_of_turn>", "<end_of_turn>"),
        "<end_of_turn>",
        f"{B}<start_of_turn>user\nBe kind.\n\nWho?{GEMMA_ASK}",
        f"{B}<start_of_turn>user\nWho?{GEMMA_ASK}",
    ),
    "phi4": Shape(
        PHI4,
        (*IM, "<|im_sep|>"),
        "<|im_end|>",
        "<|im_start|>system<|im_sep|>Be kind.<|im_end|><|im_start|>user<|im_sep|>Who?<|im_end|>"
        "<|im_start|>assistant<|im_sep|>",
        "<|im_start|>user<|im_sep|>Who?<|im_end|><|im_start|>assistant<|im_sep|>",
    ),
    "zephyr": Shape(
        ZEPHYR,
        (),
        "<|end|>",
        "<|system|>\nBe kind.<|end|>\n<|user|>\nWho?<|end|>\n<|assistant|>\n",
        "<|user|>\nWho?<|end|>\n<|assistant|>\n",
    ),
}
