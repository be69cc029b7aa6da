"""Chat templates of tokenizers: which one is used, where the system text goes, and where an answer begins and ends."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pmc_jax.errors import UserError

SYSTEM, QUESTION, ANSWER = "pmcsystemtext", "pmcquestiontext", "pmcanswertext"  # what no template says by itself
# The day's date in a prompt would make another prompt of it tomorrow: `prompt.date` takes its place.
TODAY, DATED = "strftime_now", "{%- macro strftime_now(form) -%}{{ date_string }}{%- endmacro -%}"
SET_ELSEWHERE = {"date_string": "prompt.date", "chat_template": "prompt.template"}
SET_HERE = (
    *("messages", "conversation", "add_generation_prompt", "continue_final_message", "tokenize", "return_dict"),
    *("padding", "truncation", "max_length", "return_tensors", "return_assistant_tokens_mask", "tokenizer_kwargs"),
    "sanitize_control_tokens",
)


class Chat(NamedTuple):
    """A chat template with all that it is given.

    Attributes:
        tokenizer: a transformers tokenizer; it renders the template.
        source: the template.
        options: the variables of the template: its date and `prompt.template_options`.
        system: the system text; empty = none.
        system_in: where the system text goes: "turn" = a turn of its own, "user" = in front of the question.
        opening: what the template puts between prompt and answer, where it knows no generation prompt.
        lead: what the template puts between its generation prompt and the answer. It belongs to the answer.
    """

    tokenizer: Any
    source: str
    options: Mapping[str, Any]
    system: str
    system_in: str
    opening: str = ""
    lead: str = ""

    def turns(self, question: str) -> list[dict[str, str]]:
        """The turns before the answer."""
        if self.system and self.system_in == "user":
            return [{"role": "user", "content": f"{self.system}\n\n{question}"}]
        system = [{"role": "system", "content": self.system}] if self.system and self.system_in == "turn" else []
        return [*system, {"role": "user", "content": question}]

    def render(self, turns: list[dict[str, str]], generation_prompt: bool = False) -> str:
        """The text of some turns. UserError where the template refuses them."""
        try:
            return self.tokenizer.apply_chat_template(
                turns,
                chat_template=self.source,
                add_generation_prompt=generation_prompt,
                tokenize=False,
                **self.options,
            )
        except Exception as error:  # a template can raise any kind: its own refusals, and whatever Python raises
            raise UserError(
                f"the chat template cannot be rendered: {first_line(error)}; choose another prompt.template, other "
                "prompt.template_options, or prompt.style=plain"
            ) from None

    def prompt(self, question: str) -> str:
        """The text up to where the answer begins."""
        return self.render(self.turns(question), generation_prompt=True) + self.opening


class Boundary(NamedTuple):
    """What a template writes around an answer.

    Attributes:
        opening: as in `Chat`.
        lead: as in `Chat`.
        after: what follows the answer; empty = nothing, or unknown.
    """

    opening: str
    lead: str
    after: str


def first_line(error: Exception) -> str:
    """The first line of an error's message, at most 120 characters."""
    return next((line.strip()[:120] for line in str(error).splitlines() if line.strip()), type(error).__name__)


def check_options(options: Mapping[str, Any]) -> None:
    """UserError for an option that is a setting of its own, or that no user may set."""
    for name in options:
        if name in SET_ELSEWHERE:
            raise UserError(f"prompt.template_options.{name}: use the setting {SET_ELSEWHERE[name]}")
        if name in SET_HERE:
            raise UserError(f"prompt.template_options.{name}: pmc_jax sets this itself; remove it")


def choose_template(templates: str | dict[str, str], name: str) -> str:
    """The template of a tokenizer that has one, or one for each of several names.

    Args:
        templates: the tokenizer's `chat_template`.
        name: the setting `prompt.template`; empty = the only one, or the one called "default".

    Raises:
        UserError: there is none of this name, or none is called "default".
    """
    named = {"default": templates} if isinstance(templates, str) else templates
    wanted = name or "default"
    if wanted in named:
        return DATED * (TODAY in named[wanted]) + named[wanted]
    problem = f"prompt.template={name!r}: the tokenizer has no such chat template"
    if not name:
        problem = "prompt.template is empty, and none of the tokenizer's chat templates is called 'default'"
    raise UserError(f"{problem}; choose one of {', '.join(sorted(named))}")


def place_system(chat: Chat, system_in: str) -> tuple[Chat, str]:
    """Decide where the system text goes.

    Args:
        chat: the template; its `system_in` is not read.
        system_in: the setting `prompt.system_in`: "turn", "user", "none", or "auto".

    Returns:
        The chat with `system_in` and `system` as they are used, and a note for the user, empty where nothing is odd.

    Raises:
        UserError: "turn", but the template takes no system turn.
    """
    if not chat.system or system_in == "none":
        return chat._replace(system="", system_in="turn"), ""
    if system_in == "user":
        return chat._replace(system_in="user"), ""
    try:
        text = chat._replace(system=SYSTEM, system_in="turn").prompt(QUESTION)
        problem = "" if SYSTEM in text else "it leaves the text out"
    except UserError as error:
        problem = str(error).removeprefix("the chat template cannot be rendered: ").split("; choose another")[0]
    if not problem:
        return chat._replace(system_in="turn"), ""
    if system_in == "turn":
        raise UserError(
            f"prompt.system_in='turn': the chat template takes no system turn ({problem}); choose one of user, none, "
            "auto"
        )
    return chat._replace(system_in="user"), (
        f"the chat template takes no system turn ({problem}): the system text is put in front of each question "
        "(prompt.system_in=user; none leaves it out)"
    )


def find_boundary(chat: Chat) -> Boundary:
    """What the template writes before and after an answer. UserError where it leaves the question out."""
    turns = chat.turns(QUESTION)
    prompt = chat.render(turns, generation_prompt=True)
    if QUESTION not in prompt:
        raise UserError(
            "the chat template leaves the question out of the prompt; choose another prompt.template, or "
            "prompt.style=plain"
        )
    try:
        whole = chat.render([*turns, {"role": "assistant", "content": ANSWER}])
    except UserError:  # a template for prompts alone
        return Boundary("", "", "")
    before, marker, after = whole.rpartition(ANSWER)
    if not marker:
        return Boundary("", "", "")
    between = before.removeprefix(prompt) if before.startswith(prompt) else ""
    if between.strip() and prompt == chat.render(turns):
        # The template ignores that an answer is asked for. A space at the end stays with the answer's first token.
        opening = between.rstrip(" ")
        return Boundary(opening, between[len(opening) :], after)
    return Boundary("", between, after)
