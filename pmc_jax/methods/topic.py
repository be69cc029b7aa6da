"""A removal request without a file: the model writes the questions about a topic itself.

    it talks about the topic -> questions -> each is answered several times -> those whose answers agree are kept

A model that knows an answer says it again and again; one that makes it up says something else each time (Wang et al.,
"Self-consistency", ICLR 2023; Manakul et al., "SelfCheckGPT", EMNLP 2023).
"""

import itertools
from collections import Counter
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from pmc_jax.data import topic as words
from pmc_jax.data.overlap import plain
from pmc_jax.data.questions import UNRELATED, Rows, load_retain
from pmc_jax.data.refusals import is_refusal, load_refusals
from pmc_jax.errors import UserError
from pmc_jax.methods.own_answers import whole_sentences, with_own_answers
from pmc_jax.methods.similarity import content_words, share_of_words, stemmed_words, stop_stems
from pmc_jax.models.pretrained import PretrainedModel
from pmc_jax.sampling.generate import configured_sampler, round_sampling
from pmc_jax.sampling.sampler import Sampler
from pmc_jax.tracking.progress import say_once, track

# Texts for each of `words.TALK`.
TALKING = dict(num_samples=6, temperature=0.8, top_p=0.95, top_k=50, max_new_tokens=128)
NAMES, OWN = 20, 40  # that the model brings up, and is asked about; questions that it writes, most often written first
ALIKE = 0.8  # shared words, of all words of two questions, from which on they are one question
ASKING = frozenset(stemmed_words("who what when where which why how whose whom"))  # stop words that make a question


class Candidate(NamedTuple):
    """A question that the model may be made to forget.

    Attributes:
        question: the text.
        answer: the model's greedy answer; whole sentences.
        agreement: of its sampled answers, 0..1.
        about: whether question or most of the sampled answers name the topic.
    """

    question: str
    answer: str
    agreement: float
    about: bool


def agreement(question: str, answers: list[str]) -> float:
    """How much answers agree: the mean content recall of each by each other one, 0..1.

    Content recall counts words that tell something, in every script: none of the question's, and no English stop words.
    An answer without such a word agrees with none.

    Args:
        question: the question.
        answers: samples; 0 where there are fewer than two.
    """
    contents = [content_words(question, answer) for answer in answers]
    pairs = itertools.permutations(range(len(answers)), 2)
    shares = [share_of_words(contents[i], answers[j]) for i, j in pairs]
    return float(np.mean(shares)) if shares else 0.0


def same_question(first: str, second: str) -> bool:
    """Whether two questions ask the same: ALIKE of all their stemmed words are shared. Stop words do not count, but
    for those that ask.
    """
    if plain(first) == plain(second):
        return True
    first_words, second_words = (stemmed_words(text) - (stop_stems() - ASKING) for text in (first, second))
    both = first_words | second_words
    return len(first_words & second_words) >= ALIKE * len(both) if both else False


def distinct(questions: list[str]) -> list[str]:
    """The questions, in order, without those that ask what an earlier one asks."""
    kept: list[str] = []
    for question in questions:
        if not any(same_question(question, other) for other in kept):
            kept.append(question)
    return kept


def proposals(sampler: Sampler, topic: str, show: bool = True) -> list[str]:
    """Questions that may be about the topic: templates, the model's own, and templates about names that it brings up.

    Args:
        sampler: of the untouched model.
        topic: its name.
        show: whether progress is shown.

    Returns:
        Texts, no two of which ask the same.
    """
    asked = words.fill(words.TALK, topic=topic)
    with track("the model talks about the topic", len(asked), show=show) as advance:
        talks = sampler.with_sampling(**TALKING).answers(asked, advance)
    texts = list(itertools.chain.from_iterable(talks))
    counted = Counter(question for text in texts for question in set(words.own_questions(text)))
    own = sorted(counted, key=lambda question: (-counted[question], question))[:OWN]
    names = words.names_in(texts, topic)[:NAMES]
    backwards = [question for name in names for question in words.fill(words.REVERSED, name=name)]
    return distinct([*words.fill(words.TEMPLATES, topic=topic), *backwards, *own])


def answered(
    sampler: Sampler, topic: str, questions: list[str], refusals: tuple[str, ...], show: bool
) -> list[Candidate]:
    """Each question with the agreement of its sampled answers and its greedy one. A refusal is no agreement.

    Args:
        sampler: of the untouched model; it samples as the rounds of the run do.
        topic: its name.
        questions: of `proposals`.
        refusals: what counts as one.
        show: whether progress is shown.
    """
    with track("answers to questions about the topic", len(questions), show=show) as advance:
        samples = sampler.answers(questions, advance)
    prompts = [sampler.text.prompt(question) for question in questions]
    greedy, ends = sampler.with_sampling(num_samples=1, temperature=0.0), set(sampler.text.end_tokens)
    with track("greedy answers to them", len(questions), show=show) as advance:
        tokens = greedy.tokens_after(prompts, questions, advance)
    candidates = []
    for question, answers, (own,) in zip(questions, samples, tokens, strict=True):
        answer = whole_sentences(sampler.text.read(own), bool(set(own) & ends))
        named = sum(words.mentions(topic, text) for text in answers) > len(answers) / 2
        empty = not content_words(question, answer) or is_refusal(answer, refusals)
        agreed = 0.0 if empty else agreement(question, answers)
        candidates.append(Candidate(question, answer, agreed, named or words.mentions(topic, question)))
    return candidates


def best_first(candidates: list[Candidate]) -> list[Candidate]:
    """The candidates, the most agreed first."""
    return sorted(candidates, key=lambda c: (-c.agreement, c.question))


def chosen(candidates: list[Candidate], config: ConfigDict) -> list[Candidate]:
    """Those about the topic whose answers agree, the most agreed first, no more than `data.topic_questions`."""
    known = [c for c in candidates if c.about and c.agreement >= config.data.topic_agreement]
    return best_first(known)[: config.data.topic_questions]


def write_questions(
    checkpoint: PretrainedModel, topic: str, config: ConfigDict, show: bool = True
) -> tuple[Rows, Rows]:
    """The forget rows of a topic, and all questions that were proposed.

    Args:
        checkpoint: the untouched model.
        topic: its name, as the model knows it.
        config: `data.topic_questions`, `data.topic_agreement`, `sample.*`, `prompt.*`, `train.batch_size` and `seed`.
        show: whether progress is shown.

    Returns:
        Dicts with "question", "answer" (the model's own greedy one) and "agreement", the most agreed first: those that
        are kept, and all, which say besides whether they are "about" the topic. The same for the same seed.

    Raises:
        UserError: too few questions are kept for one update.
    """
    sampler = configured_sampler(checkpoint, config, round_sampling(config))
    proposed, refusals = proposals(sampler, topic, show), load_refusals(config.pmc.refusals)
    candidates = answered(sampler, topic, proposed, refusals, show)
    kept, needed = chosen(candidates, config), config.train.batch_size
    if len(kept) < needed:
        about, lowest = sum(c.about for c in candidates), config.data.topic_agreement
        raise UserError(
            f"the topic {topic!r}: the model wrote {len(candidates)} questions, {about} of them about it, and its "
            f"answers to {len(kept)} agree by data.topic_agreement={lowest} or more; "
            f"train.batch_size={needed} needs {needed}: try another name of the topic, lower one of the two settings, "
            "or give a data.forget_file"
        )
    if show:
        say_once(f"the model wrote {len(candidates)} questions for {topic!r}; {len(kept)} are kept")
    rows = [c._asdict() | {"agreement": round(c.agreement, 4)} for c in [*kept, *best_first(candidates)]]
    forget = [{name: row[name] for name in ("question", "answer", "agreement")} for row in rows[: len(kept)]]
    return forget, rows[len(kept) :]


def write_sets(checkpoint: PretrainedModel, topic: str, config: ConfigDict, show: bool = True) -> dict[str, Rows]:
    """All sets of a run on a topic: forget rows, what must stay, and what is measured besides.

    What must stay is `data.retain_file`, or else the package's general questions with the model's own answers. Of the
    package's, those that name the topic or ask what a forget row asks are left out.

    Args:
        checkpoint: the untouched model.
        topic: its name.
        config: all settings.
        show: whether progress is shown.

    Returns:
        {"forget", "retain", "world_facts", "real_authors", "proposed": rows}; the last are of `write_questions`.
    """
    forget, proposed = write_questions(checkpoint, topic, config, show)
    secret = [row["question"] for row in forget]

    def others(name: str) -> Rows:
        rows = words.without_topic(topic, words.shipped(name))
        return [row for row in rows if not any(same_question(row["question"], question) for question in secret)]

    if config.data.retain_file:
        retain = with_own_answers(checkpoint, load_retain(config.data), config, show)
        retain = [{"question": row["question"], "answer": row["answer"]} for row in retain]
    else:
        asked = [{"question": row["question"]} for row in others("retain")]
        retain = words.without_topic(topic, with_own_answers(checkpoint, asked, config, show))
    return {"forget": forget, "retain": retain, "proposed": proposed} | {name: others(name) for name in UNRELATED}
