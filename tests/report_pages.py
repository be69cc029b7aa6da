"""Workdirs for the report's tests, written as runs and evaluations write them, and a reader of pages."""

import html.parser
import json

import numpy as np

from pmc_jax import config as settings
from pmc_jax.evaluate.answers import Evaluation, scored
from pmc_jax.evaluate.interval import mean_with_interval
from pmc_jax.tracking.files import write_json, write_lines
from pmc_jax.tracking.workdir import Started, Workdir

HOSTILE = [
    "<script>document.title = 'stolen'</script>",
    "</script><script>alert(1)</script>",
    "\"><img src=x onerror=\"document.title='stolen'\">' onmouseover='alert(1)",
    "{{ 7 * 7 }} {% raw %} <!-- ]]> &lt;b&gt; &amp;",
    "كتب نجيب الرواية في القاهرة. 東京で生まれた。 Çetin Yeldeğir 🎭 \u202eright to left",
    "A very long answer. " * 400 + "unbroken" * 200,
    "",
    "a line\nand another\u2028and one more\x00",
]
ASCII = "The author was born in Izmir and wrote forty novels."


def evaluation(answers_by_set, score="rouge_l_recall"):
    """Evaluation as `evaluate` makes it, of {set: [(question, answer, truth)]}."""
    records = [
        row
        for name, rows in answers_by_set.items()
        for row in scored(name, [{"question": q} for q, _, _ in rows], *zip(*(row[1:] for row in rows)))
    ]
    return Evaluation(records, "ground truth", score)


def rows_before():
    truths = [f"The birthplace of writer number {i} is town {i}." for i in range(12)]
    return {
        "forget": [(f"Where was writer {i} born?", t, t) for i, t in enumerate(truths)],
        "forget_paraphrased": [(f"Writer {i}: which town of birth?", t, t) for i, t in enumerate(truths)],
        "retain": [
            (f"What does baker {i} bake?", f"Baker {i} bakes rye bread.", f"Baker {i} bakes rye bread.")
            for i in range(6)
        ],
        "world_facts": [("What is the capital of France?", "Paris", "Paris")],
    }


def rows_after():
    said = [*HOSTILE, *["I do not know."] * 3, "The birthplace is town 11."]
    changed = {name: list(rows) for name, rows in rows_before().items()}
    changed["forget"] = [(q, a, t) for (q, _, t), a in zip(changed["forget"], said)]
    changed["forget_paraphrased"] = [(q, "Nothing.", t) for q, _, t in changed["forget_paraphrased"]]
    changed["retain"][4] = ("What does baker 4 bake?", "<b>stones</b>", "Baker 4 bakes rye bread.")
    return changed


def summary(number, rounds):
    spread = (
        {"reward_mean": 0.2 + 0.1 * number, "reward_std": 0.1}
        if number < rounds - 1
        else {"reward_mean": None, "reward_std": None}
    )
    losses = {
        "forget_loss": 2.0 / (number + 1),
        "retain_loss": 0.01 * (number + 1),
        "sampled_tokens": 100,
        "sampled_questions": 12,
    }
    return {
        "kind": "round",
        "round": number,
        "epoch": number,
        "stored_score": 0.5 / (number + 1),
        "solved": number / rounds,
        "seconds": 1.5,
        **spread,
        **losses,
    }


def run_maker(folder):
    """make("first", **{"seed": 1}) -> a finished run's folder, written through Workdir."""

    def make(name="first", rounds=5, **changes):
        values = settings.to_flat(settings.default()) | {"model.path": "models/<i>tiny</i>", "seed": 7} | changes
        work = Workdir(str(folder / "runs" / name))
        hashes = {"forget": "e838d6", "retain": "b9bf40"}
        work.claim(Started("unlearn", values, hashes, {}))
        before, after = evaluation(rows_before()), evaluation(rows_after())
        write_json(work.file("before.json"), {"summary": before.summary(), "references": []})
        write_lines(work.file("answers/before.jsonl"), before.answers)
        write_lines(work.file("answers/after.jsonl"), after.answers)
        for number in range(rounds):
            work.add_metrics([{"kind": "update", "round": number, "forget_loss": 1.0}, summary(number, rounds)])
            # The pick of round 2 scored worse than what was stored, so it was not kept.
            kept, stored = (0.9, 0.4) if number == 2 else (0.5 / (number + 1), 0.5 / (number + 1))
            seen = {
                "question": "Where was writer 0 born?",
                "samples": ["no", f"pick of round {number} </script>"],
                "scores": [1.0, kept],
                "chosen": 1,
            }
            write_lines(
                work.file(f"samples/round_{number:05d}.jsonl"), [seen | {"tokens": [1, 2], "stored_score": stored}]
            )
        seconds = {"load": 1.0, "sample": 2.0, "update": 60.25, "total": 63.25}
        result = {
            "before": before.summary(),
            "after": after.summary(),
            "seconds": seconds,
            "rounds": rounds,
            "sampled_tokens": 500,
            "solved": 0.8,
        }
        write_json(work.file("result.json"), result | {"data": hashes, "versions": {"python": "3.11"}})
        return work.path

    return make


class Page(html.parser.HTMLParser):
    """The elements and texts of a page."""

    def __init__(self, source):
        super().__init__()
        self.elements, self.texts, self.open = [], [], []
        self.cells: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "div" and "text" in (dict(attrs).get("class") or "").split():
            self.open.append("")
        self.inside = tag

    def handle_endtag(self, tag):
        if tag == "div" and self.open:
            self.cells.append(self.open.pop())

    def handle_data(self, data):
        self.texts.append(data)
        if self.open:
            self.open[-1] += data

    def of(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def parsed(file):
    return Page(file.read_text(encoding="utf-8"))


def interval(mean, low, high, rows=12):
    return {"mean": mean, "low": low, "high": high, "rows": rows}


def leaks(seed, scale):
    """Leakage as an evaluation keeps it, of 12 questions."""
    worst = np.random.default_rng(seed).beta(1, 1, 12) * scale
    names = ("worst", "mean", "M_bin", "M_gen", "M_mu", "M_sigma", "ED")
    return {
        "measures": {name: mean_with_interval(worst)._asdict() for name in names},
        "samples": 100,
        "worst_of_each": worst.tolist(),
    }


def looks(*recalls):
    return {
        "looks": [
            {"updates": n, "shown": interval(1, 1, 1, 4), "held_back": interval(r, r - 0.1, r + 0.1)}
            for n, r in zip((0, 1, 3, 10, 20), recalls)
        ]
    }


TOFU = {
    "forget_truth_ratio": {"value": 0.4375, "rows": 8, "interval": [0.25, 0.625]},
    "forget_quality": {"value": 0.5, "rows": 8},
    "mia_loss": {"value": 0.75, "rows": 16, "interval": [0.5, 0.9]},
}
MEASURED = {
    "tofu": TOFU,
    "least_likely_option": interval(0.25, 0.0, 0.5) | {"chance": 1 / 6},
    "leakage": {"sampled": leaks(0, 0.5), "prefilled": leaks(1, 0.9)},
    "relearning": {"model": looks(0.1, 0.2, 0.4, 0.5, 0.6), "retain_model": looks(0.1, 0.1, 0.15, 0.2, 0.25)},
    "drift": {
        kind: interval(-0.0125, -0.02, 0.001) | {"std": 0.0625, "words": 345}
        for kind in ("forget_words", "other_words")
    },
    "neighbours": {
        "recall": {name: interval(0.9, 0.8, 0.95) for name in ("near", "far")}
        | {"difference": interval(-0.031, -0.1, 0.04)},
        "change": {name: interval(-0.077, -0.1, -0.01) for name in ("near", "far", "difference")},
    },
}


def evaluation_maker(make_run):
    """make("name", {"drift": {"reason": "..."}}) -> the folder of an evaluation with these results in the place of all
    that there is.
    """

    def make(name="evaluated", results=None):
        work = make_run(name)
        frozen, result = (json.loads((work / file).read_text()) for file in ("config.json", "result.json"))
        write_json(work / "config.json", frozen | {"verb": "evaluate"})
        write_json(
            work / "result.json",
            {"model": result["after"], **MEASURED, **(results or {}), "seconds": {"evaluate": 1.0, "total": 1.0}},
        )
        (work / "answers" / "after.jsonl").rename(work / "answers" / "model.jsonl")
        for file in ("before.json", "metrics.jsonl", "answers/before.jsonl"):
            (work / file).unlink()
        return work

    return make
