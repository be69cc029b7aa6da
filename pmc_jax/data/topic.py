"""A topic by its name: what a model is asked to make it talk, and the questions and names in what it says. No model.

The words are English. A topic in another language is asked about in English.
"""

from collections import Counter
from importlib import resources
from typing import Any

import regex

from pmc_jax.data.parse import Rows
from pmc_jax.data.questions import read_file
from pmc_jax.errors import UserError

# What makes a model talk about the topic, and write questions about it.
TALK = (
    "Tell me everything that you know about {topic}.",
    "What are the most important facts about {topic}? Answer with a numbered list of short facts.",
    "List the best known works and achievements of {topic}, one on each line.",
    "Which people, places and events are connected with {topic}? List them, one on each line.",
    "Write ten short questions about {topic}, one on each line.",
    "Write a quiz about {topic}: ten questions, each with a short answer.",
)
# Questions that fit many topics. Those that do not fit get answers that do not agree with each other.
TEMPLATES = (
    "Who is {topic}?",
    "What is {topic}?",
    "What is {topic} known for?",
    "What is {topic} best known for?",
    "Why is {topic} famous?",
    "Why is {topic} important?",
    "What did {topic} do?",
    "What was the profession of {topic}?",
    "What did {topic} write?",
    "What did {topic} create?",
    "What is the most famous work of {topic}?",
    "Name three famous works of {topic}.",
    "Name a character created by {topic}.",
    "When was {topic} born?",
    "Where was {topic} born?",
    "When did {topic} die?",
    "Where did {topic} die?",
    "Where did {topic} live?",
    "Where did {topic} study?",
    "In which century did {topic} live?",
    "In which country did {topic} live?",
    "In which language did {topic} write?",
    "What nationality was {topic}?",
    "Who was married to {topic}?",
    "Who were the parents of {topic}?",
    "Who were the children of {topic}?",
    "Who worked with {topic}?",
    "What influenced {topic}?",
    "Who was influenced by {topic}?",
    "Which awards did {topic} receive?",
    "When did {topic} begin?",
    "Where is {topic}?",
    "What is {topic} made of?",
    "Describe {topic} in one sentence.",
    "Tell me about {topic}.",
    "Tell me a fact about {topic}.",
    "What do people remember {topic} for?",
    "Give a short biography of {topic}.",
)
# Questions about a name that the model brings up itself. Their answers must come back to the topic.
REVERSED = ("Who wrote {name}?", "Who created {name}?", "What is {name}?")
QUESTION = regex.compile(r"[^\n?？؟]{8,200}[?？؟]")
LIST_MARK = regex.compile(r"^[\s\-–—*•#>\"“”']*(?:(?:Q(?:uestion)?\s*)?\d*\s*[.):]\s*)?[\s*\"“”']*(?:Question:\s*)?")
SENTENCE_END = regex.compile(r"(?<=[.!:])[\s\"”]+")
CAPITAL = r"\p{Lu}[\p{L}\p{M}\p{N}’'\-]*"
SMALL = r"(?:of|the|and|a|an|de|du|la|le|von|van|der|in|on|to|for|about|as|you)"
RUN = regex.compile(rf"{CAPITAL}(?:\s+(?:{SMALL}\s+){{0,2}}{CAPITAL})*")
QUOTED = regex.compile(r"[\"“«]([^\"“”«»\n]{3,60})[\"”»]")
# Words that begin a sentence and no name.
OPENERS = regex.compile(
    r"^(?:(?:The|A|An|His|Her|Their|Its|He|She|It|They|I|We|You|In|On|At|By|From|With|As|And|But|Also|This|That|These|"
    r"Those|One|Some|Many|For|To|Of|When|While|After|Before|During|Here|There|What|Who|Why|How|Where|Which)\b\s*)+"
)
LEAST_LETTERS = 4  # of the last word of a topic that alone stands for the topic
WHOLE_SHARE = 2  # a name counts that so many texts hold


def topic_of(data: Any) -> str:
    """The topic that the settings name: `data.topic`, or RWKU's `data.subject`; empty where neither is given.

    Raises:
        UserError: it is blank, both are given, or a forget file is given too.
    """
    given = {name: data[name] for name in ("topic", "subject") if data[name]}
    if len(given) == 2:
        raise UserError("data.topic and data.subject are both given: leave one out")
    for name, value in given.items():
        if not any(c.isalnum() for c in value):
            raise UserError(
                f'data.{name}={value!r}: has no letter; name the topic, as --config.data.{name}="Ada Lovelace"'
            )
        if name == "topic" and data.forget_file:
            raise UserError("data.topic and data.forget_file are both given: leave one out")
    return " ".join(next(iter(given.values()), "").split())


def fill(patterns: tuple[str, ...], **words: str) -> list[str]:
    """The patterns with the words in their places."""
    return [pattern.format(**words) for pattern in patterns]


def own_questions(text: str) -> list[str]:
    """The questions in what a model wrote, of three words or more, without the marks of a list."""
    sentences = [SENTENCE_END.split(LIST_MARK.sub("", match.strip()))[-1] for match in QUESTION.findall(text)]
    asked = [sentence.strip(" \t\"“”'*") for sentence in sentences]
    return [question for question in asked if len(question.split()) > 2]


def names_in(texts: list[str], topic: str) -> list[str]:
    """Names that several texts hold: capitalised runs of words, and what stands in quotes. In scripts with capitals.

    Args:
        texts: what the model says about the topic.
        topic: its name, which is none of them.

    Returns:
        Those of most texts first; those of as many by the alphabet.
    """
    own, held = tuple(word.casefold() for word in regex.findall(r"\w{3,}", topic)), Counter()
    for text in texts:
        runs = QUOTED.findall(text) + RUN.findall(QUOTED.sub(" ", text))
        names = {OPENERS.sub("", run).strip(" .,;:!?’'").removesuffix("’s").removesuffix("'s") for run in runs}
        held.update(name for name in names if len(name) > 3 and name[0].isupper() and not is_own(name, own))
    counted = [(-count, name) for name, count in held.items() if count >= WHOLE_SHARE]
    return [name for _, name in sorted(counted)]


def is_own(name: str, words: tuple[str, ...]) -> bool:
    """Whether a name is the topic's own or made of it, as "Shakespearean" is. words: the topic's, folded."""
    return any(word.startswith(words) for word in regex.findall(r"\w+", name.casefold())) if words else False


def mentions(topic: str, text: str) -> bool:
    """Whether a text names a topic: by its whole name, or by the last word of it, where that is a name.

    "Rowling" stands for "J. K. Rowling". The last word must have a capital and LEAST_LETTERS letters.
    """
    squeezed = " ".join(text.split())
    if topic.casefold() in squeezed.casefold():
        return True
    last = topic.split()[-1]
    alone = last[0].isupper() and sum(c.isalpha() for c in last) >= LEAST_LETTERS
    return alone and regex.search(rf"\b{regex.escape(last)}\b", squeezed) is not None


def shipped(name: str) -> Rows:
    """A set of questions that come with the package: "retain", "world_facts" or "real_authors"."""
    return read_file(str(resources.files("pmc_jax.data").joinpath("real", f"{name}.jsonl")))


def without_topic(topic: str, rows: Rows) -> Rows:
    """The rows that do not name the topic, in question or answer."""
    return [row for row in rows if not mentions(topic, f"{row['question']}\n{row.get('answer') or ''}")]
