"""Files as muse-bench/MUSE-News has them, CONFIG/SPLIT-00000-of-00001.parquet, with texts of our own."""

from pathlib import Path

import pyarrow
import pyarrow.parquet
from passages import passages

EXAMPLES = 3  # MUSE shows 10


def articles(seed: int) -> list[str]:
    """Texts of two passages each: more than the 128 tokens that MUSE asks for."""
    parts = passages(16, seed)
    return [f"{first}\n\n{second}" for first, second in zip(parts[::2], parts[1::2])]


FORGET, RETAIN, HOLDOUT = articles(11), articles(12), articles(13)


def question_rows(texts: list[str]) -> list[dict[str, str]]:
    """A question about each passage."""
    rows = []
    for text in texts:
        words = text.split()
        year = next(word for word in words if word.isdigit())
        rows.append({"question": f"In which year did {words[0]} {words[1]} come to {words[4]}?", "answer": year})
    return rows


def verbatim_rows(texts: list[str]) -> list[dict[str, str]]:
    """The first 14 words of each passage as the prompt, the rest as what follows."""
    cuts = [text.split(" ") for text in texts]
    return [{"prompt": " ".join(words[:14]), "gt": " ".join(words[14:])} for words in cuts]


def text_rows(texts: list[str]) -> list[dict[str, str]]:
    return [{"text": text} for text in texts]


def configs() -> dict[str, dict[str, list[dict[str, str]]]]:
    """{config: {split: rows}}."""
    forget, retain = question_rows(FORGET), question_rows(RETAIN)
    raw = {"forget": FORGET, "holdout": HOLDOUT, "retain1": RETAIN[:6], "retain2": RETAIN[6:]}
    knowmem = {"forget_qa": forget[EXAMPLES:], "forget_qa_icl": forget[:EXAMPLES]}
    knowmem |= {"retain_qa": retain[EXAMPLES:], "retain_qa_icl": retain[:EXAMPLES]}
    parts = {f"forget_{i + 1}": text_rows(FORGET[2 * i : 2 * i + 2]) for i in range(4)}
    grown = {f"forget_{i + 1}": text_rows(FORGET[: 2 * i + 2]) for i in range(4)}
    return {
        "raw": {name: text_rows(texts) for name, texts in raw.items()},
        "knowmem": knowmem,
        "verbmem": {"forget": verbatim_rows(FORGET)},
        "privleak": {name: text_rows(raw[name]) for name in ("forget", "holdout")} | {"retain": text_rows(RETAIN)},
        "train": {name: text_rows(raw[name]) for name in ("forget", "retain1", "retain2")},
        "sust": parts,
        "scal": grown,
    }


def write_muse(folder: Path) -> Path:
    """The folder with all of them."""
    for config, splits in configs().items():
        (folder / config).mkdir(parents=True)
        for split, rows in splits.items():
            file = folder / config / f"{split}-00000-of-00001.parquet"
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return folder
