"""The answers themselves: forget questions, what should stay, and the words that the score counts."""

import functools
import itertools
import json
import re
from typing import Any

import regex
from rapidfuzz.distance import LCSseq

from pmc_jax.evaluate.recall import CONTENT
from pmc_jax.methods.rouge import rouge_tokens
from pmc_jax.methods.similarity import CHARACTER, content_words, stemmed_words
from pmc_jax.report.read import Run
from pmc_jax.report.recalls import FORGET, KEEP, SETS

Segments = list[tuple[str, bool]]  # pieces of a text, and whether each is marked


@functools.cache
def tokens(word: str) -> tuple[str, ...]:
    """What ROUGE makes of a word: a stemmed token; none or several where it holds letters beyond a-z."""
    return tuple(rouge_tokens(word))


def counted(answer: str, truth: str) -> Segments:
    """The answer in pieces, and whether ROUGE-L counts the piece: it lies in the longest common subsequence."""
    pieces = re.findall(r"\w+|\W+", answer)
    piece_tokens = [(i, token) for i, piece in enumerate(pieces) for token in tokens(piece)]
    blocks = LCSseq.opcodes([token for _, token in piece_tokens], rouge_tokens(truth))
    held = {piece_tokens[k][0] for b in blocks if b.tag == "equal" for k in range(b.src_start, b.src_end)}
    # The gap between two counted words is marked with them: a phrase reads as one.
    marks = [i in held or (i - 1 in held and i + 1 in held) for i in range(len(pieces))]
    return [
        ("".join(piece for piece, _ in group), mark)
        for mark, group in itertools.groupby(zip(pieces, marks), key=lambda pair: pair[1])
    ]


def carried(answer: str, question: str, truth: str) -> Segments:
    """The answer in pieces, and whether content recall counts the piece: it is a content word of the truth, or part of
    one.
    """
    content = content_words(question, truth)
    marked: list[tuple[str, bool]] = []
    for piece in regex.findall(r"[\w\p{M}]+|[^\w\p{M}]+", answer):
        words = CHARACTER.findall(piece)  # of a script without spaces: pairs of characters are counted
        if words and "".join(words) == piece:
            pairs = [bool(stemmed_words(one + other) & content) for one, other in itertools.pairwise(words)]
            alone = len(words) == 1 and bool(stemmed_words(piece) & content)
            marked += [(word, any(pairs[max(0, i - 1) : i + 1]) or alone) for i, word in enumerate(words)]
        else:
            marked.append((piece, bool(stemmed_words(piece) & content)))
    return [
        ("".join(piece for piece, _ in group), mark) for mark, group in itertools.groupby(marked, key=lambda p: p[1])
    ]


def segments(row: dict[str, Any], score: str) -> Segments:
    """An evaluated answer in pieces, and whether the score counts them."""
    if score == CONTENT:
        return carried(row["answer"], row["question"], row["truth"])
    return counted(row["answer"], row["truth"])


def scores_of(row: dict[str, Any] | None, score: str) -> dict[str, float | None]:
    """{"score", "content"} of a row, None where it has none; content recall only beside another score."""
    row = row or {}
    return {"score": row.get(score), "content": None if score == CONTENT else row.get(CONTENT)}


def by_question(rows: list[dict[str, Any]], sets: tuple[str, ...]) -> dict[tuple[str, str, int], dict[str, Any]]:
    """Rows of some sets by (set, question, how many times it stood before).

    By these keys runs, and before and now, are put beside each other.
    """
    by_key: dict[tuple[str, str, int], dict[str, Any]] = {}
    for row in rows:
        if row["set"] in sets:
            again = 0
            while (row["set"], row["question"], again) in by_key:
                again += 1
            by_key[row["set"], row["question"], again] = row
    return by_key


def distinct(texts: list[tuple[str, Any]]) -> list[dict[str, Any]]:
    """[(run, text)] -> each different text once, with the runs it belongs to; no runs named when all have the same."""
    by_text: dict[str, Any] = {}
    for run, text in texts:
        by_text.setdefault(json.dumps(text), {"runs": [], "text": text})["runs"].append(run)
    return [entry if len(by_text) > 1 else entry | {"runs": []} for entry in by_text.values()]


def questions(runs: list[Run]) -> list[dict[str, Any]]:
    """The forget questions and their paraphrases, those of which most is left first."""
    before, now = ([by_question(run.answers[stage], FORGET) for run in runs] for stage in ("before", "now"))
    keys = dict.fromkeys(key for rows in (*before, *now) for key in rows)
    rows = [question(key, runs, [b.get(key) for b in before], [n.get(key) for n in now]) for key in keys]
    return sorted(rows, key=lambda row: -row["most"])


def question(
    key: tuple[str, str, int], runs: list[Run], before: list[dict | None], now: list[dict | None]
) -> dict[str, Any]:
    """One row of the table: what all runs share, and a cell for each run."""
    truths = [(run.name, row["truth"]) for run, b, n in zip(runs, before, now) if (row := n or b)]
    originals = [(run.name, segments(b, run.score)) for run, b in zip(runs, before) if b]
    cells = [
        {
            "before": scores_of(b, run.score),
            "now": scores_of(n, run.score),
            "answer": n and segments(n, run.score),
            "kept": run.kept.get(key[1], []) if key[0] == "forget" else [],
        }
        for run, b, n in zip(runs, before, now)
    ]
    stage = now if any(now) else before
    measured = [row[run.score] or 0.0 for run, row in zip(runs, stage) if row]
    shared = {
        "set": key[0],
        "title": SETS[key[0]],
        "question": key[1],
        "truths": distinct(truths),
        "originals": distinct(originals),
    }
    return shared | {"cells": cells, "most": max(measured)}


def kept(run: Run) -> dict[str, Any]:
    """How many answers to what must stay are word for word as before, and the others, those that lost most first."""
    before, now = (by_question(run.answers[stage], KEEP) for stage in ("before", "now"))
    pairs = [(before[key], now[key]) for key in before if key in now]
    changed = [changed_answer(b, n, run.score) for b, n in pairs if b["answer"] != n["answer"]]
    counts = [
        (title, [b["answer"] == n["answer"] for b, n in pairs if b["set"] == name])
        for name, title in SETS.items()
        if name in KEEP
    ]
    return {
        "counts": [{"title": title, "kept": sum(same), "rows": len(same)} for title, same in counts if same],
        "changed": sorted(changed, key=lambda c: (c["scores"][1]["score"] or 0.0) - (c["scores"][0]["score"] or 0.0)),
    }


def changed_answer(before: dict[str, Any], now: dict[str, Any], score: str) -> dict[str, Any]:
    """One answer that is another now."""
    return {
        "title": SETS[now["set"]],
        "question": now["question"],
        "truth": now["truth"],
        "before": segments(before, score),
        "now": segments(now, score),
        "scores": (scores_of(before, score), scores_of(now, score)),
    }
