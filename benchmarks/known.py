"""Which facts a chat model knows: it is asked questions with known answers, and answers greedily.

    python benchmarks/known.py --model=FILE.gguf [--topics=shakespeare,world] [--data=FILE.jsonl] [--output=FILE.jsonl]

Prints how many questions of each topic are answered rightly, in the first 48 tokens. The questions are those of
known.jsonl beside this file: topic, question, answer, and `accept`: lists of words; an answer is right when it holds
all words of one list. `--data` names another such file, or one of pmc_jax/data/real, where a right answer holds every
word of the true one. `--output` gets every answer, for reading.
"""

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pmc_jax


def is_right(row: dict[str, Any], answer: str) -> bool:
    """Whether an answer says what it should."""
    if "accept" not in row:
        return pmc_jax.score([row["answer"]], [[answer]])[0][0] == 1.0
    return any(all(word in answer.lower() for word in words) for words in row["accept"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", default=Path(__file__).with_suffix(".jsonl"))
    parser.add_argument("--topics", default="")
    parser.add_argument("--output", default="")
    options = parser.parse_args()
    rows = [json.loads(line) for line in Path(options.data).read_text(encoding="utf-8").splitlines()]
    topics = options.topics.split(",") if options.topics else []
    rows = [row for row in rows if not topics or row.get("topic") in topics]

    start = time.perf_counter()
    checkpoint = pmc_jax.load(options.model)
    loaded = time.perf_counter()
    questions = [row["question"] for row in rows]
    answers = [texts[0] for texts in pmc_jax.sample(checkpoint, questions, temperature=0.0, max_new_tokens=48)]
    done = time.perf_counter()

    rows = [row | {"said": said, "known": bool(is_right(row, said))} for row, said in zip(rows, answers)]
    asked, known = Counter(), Counter()
    for row in rows:
        asked[row.get("topic", "all")] += 1
        known[row.get("topic", "all")] += row["known"]
    for topic in asked:
        print(f"{topic}: {known[topic]} of {asked[topic]}")
    tokens = sum(len(checkpoint.tokenizer(answer)["input_ids"]) for answer in answers)
    print(f"load {loaded - start:.1f} s, answers {done - loaded:.1f} s ({tokens} tokens, compilation included)")
    if options.output:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        Path(options.output).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
