"""The report: what a workdir says is in it, escaped; what is absent is said; it works in a browser."""

import html.parser
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from pmc_jax import config as settings
from pmc_jax.errors import UserError
from pmc_jax.evaluate.collapse import Evaluation
from pmc_jax.evaluate.interval import mean_with_interval
from pmc_jax.report import curves, page, read
from pmc_jax.reward import score
from pmc_jax.workdir import Workdir, read_lines, write_json, write_lines

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


def evaluation(answers_by_set):
    """Evaluation as `evaluate` makes it, of {set: [(question, answer, truth)]}."""
    records = [
        {"set": name, "question": q, "answer": a, "truth": t, "rouge_l_recall": float(score([t], [[a]])[0, 0])}
        for name, rows in answers_by_set.items()
        for q, a, t in rows
    ]
    return Evaluation(records, "ground truth")


def rows_before():
    truths = [f"The birthplace of writer number {i} is town {i}." for i in range(12)]
    return {
        "forget": [(f"Where was writer {i} born?", t, t) for i, t in enumerate(truths)],
        "forget_paraphrased": [(f"Writer {i}: which town of birth?", t, t) for i, t in enumerate(truths)],
        "retain": [(f"What does baker {i} bake?", f"Baker {i} bakes rye bread.", f"Baker {i} bakes rye bread.") for i in range(6)],
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
    spread = {"reward_mean": 0.2 + 0.1 * number, "reward_std": 0.1} if number < rounds - 1 else {"reward_mean": None, "reward_std": None}
    losses = {"forget_loss": 2.0 / (number + 1), "retain_loss": 0.01 * (number + 1), "sampled_tokens": 100, "sampled_questions": 12}
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


@pytest.fixture
def make_run(tmp_path):
    """make_run("first", **{"seed": 1}) -> a finished run's folder, written through Workdir."""

    def make(name="first", rounds=5, **changes):
        values = settings.to_flat(settings.default()) | {"model.path": "models/<i>tiny</i>", "seed": 7} | changes
        work = Workdir(str(tmp_path / "runs" / name))
        hashes = {"forget": "e838d6", "retain": "b9bf40"}
        work.claim("unlearn", values, hashes)
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
            write_lines(work.file(f"samples/round_{number:05d}.jsonl"), [seen | {"tokens": [1, 2], "stored_score": stored}])
        seconds = {"load": 1.0, "sample": 2.0, "update": 60.25, "total": 63.25}
        result = {"before": before.summary(), "after": after.summary(), "seconds": seconds, "rounds": rounds, "sampled_tokens": 500, "solved": 0.8}
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


def test_what_a_model_says_stays_text(make_run):
    file = page.write([make_run()])
    found = parsed(file)
    assert file.name == "report.html" and len(found.of("script")) == 1 and not found.of("img")
    assert all(answer.replace("\x00", "\ufffd") in [c.replace("\x00", "\ufffd") for c in found.cells] for answer in HOSTILE), "each answer, whole"
    assert not [attrs for _, attrs in found.elements if any(name.startswith("on") for name in attrs)]
    assert "pick of round 0 </script>" in found.cells and "<b>stones</b>" in found.cells
    assert not [attrs for _, attrs in found.elements for name in ("src", "href") if not (attrs.get(name) or "#").startswith(("#", "data:"))]


def test_only_the_pages_own_script_may_run(make_run):
    source = page.write([make_run()]).read_text(encoding="utf-8")
    policy = next(m["content"] for m in Page(source).of("meta") if m.get("http-equiv") == "Content-Security-Policy")
    script = re.search(r"<script>(.*?)</script>", source, re.S).group(1)
    assert f"'sha256-{page.digest(script)}'" in policy and "default-src 'none'" in policy


def test_the_numbers(make_run):
    work = make_run()
    text = parsed(page.write([work])).text
    result = json.loads((work / "result.json").read_text())
    for when in ("before", "after"):
        for key, digits in (("unlearn_quality", 1), ("utility", 1), ("forget", 3), ("retain", 3), ("world_facts", 3)):
            assert f"{result[when][key]:.{digits}f}" in text, (when, key)
    _, low, high, _ = mean_with_interval([r["rouge_l_recall"] for r in read_lines(work / "answers" / "after.jsonl") if r["set"] == "forget"])
    assert f"[{low:.3f}, {high:.3f}]" in text and "12 rows" in text
    for when in ("before", "after"):
        low, high = result[when]["intervals"]["unlearn_quality"]
        assert f"[{low:.1f}, {high:.1f}]" in text
    assert "5 of 6 retain answers" in text and "1 of 1 world facts answers" in text and "1 changed" in text
    assert "1:03 min" in text and "60.2" in text and "e838d6" in text and "80% of the forget questions" in text
    assert "not evaluated" in text and "Sets: real authors" in text and "Membership attacks" in text and "Relearning" in text


def test_the_page_is_a_function_of_the_run(make_run, tmp_path):
    work = make_run()
    first = page.write([work], tmp_path / "a.html").read_bytes()
    assert page.write([work], tmp_path / "b.html").read_bytes() == first


def test_marked_words_are_those_that_rouge_counts():
    truth = "The birthplace of Çetin is Izmir, Turkey."
    answer = "His birthplaces: IZMIR; he never saw Turkey again."
    marked = [piece for piece, mark in page.counted(answer, truth) if mark]
    assert marked == ["birthplaces: IZMIR", "Turkey"], "stemmed, in any case, in order"
    assert "".join(piece for piece, _ in page.counted(answer, truth)) == answer
    assert page.counted("", truth) == [] and page.counted("東京", truth) == [("東京", False)]


def test_kept_answers_leave_out_picks_that_were_not_stored(make_run):
    steps = read.read_run(make_run(), "run").kept["Where was writer 0 born?"]
    assert [s["round"] for s in steps] == [0, 1, 3, 4]


def test_an_unfinished_run_says_so(make_run):
    work = make_run()
    for file in ("result.json", "answers/after.jsonl"):
        (work / file).unlink()
    text = parsed(page.write([work])).text
    assert "This run is not finished" in text and "in epoch 5 of 30" in text and "not evaluated yet" in text and "The model now" in text
    (work / "before.json").unlink()
    (work / "answers" / "before.jsonl").unlink()
    assert "Forget loss" in parsed(page.write([work])).text, "rounds alone are something"
    (work / "metrics.jsonl").unlink()
    with pytest.raises(UserError, match="has not measured anything yet"):
        page.write([work])


def interval(mean, low, high, rows=12):
    return {"mean": mean, "low": low, "high": high, "rows": rows}


def leaks(seed, scale):
    """Leakage as an evaluation keeps it, of 12 questions."""
    worst = np.random.default_rng(seed).beta(1, 1, 12) * scale
    names = ("worst", "mean", "M_bin", "M_gen", "M_mu", "M_sigma", "ED")
    return {"measures": {name: mean_with_interval(worst)._asdict() for name in names}, "samples": 100, "worst_of_each": worst.tolist()}


def looks(*recalls):
    return {
        "looks": [
            {"updates": n, "shown": interval(1, 1, 1, 4), "held_back": interval(r, r - 0.1, r + 0.1)} for n, r in zip((0, 1, 3, 10, 20), recalls)
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
    "drift": {kind: interval(-0.0125, -0.02, 0.001) | {"std": 0.0625, "words": 345} for kind in ("forget_words", "other_words")},
    "neighbours": {
        "recall": {name: interval(0.9, 0.8, 0.95) for name in ("near", "far")} | {"difference": interval(-0.031, -0.1, 0.04)},
        "change": {name: interval(-0.077, -0.1, -0.01) for name in ("near", "far", "difference")},
    },
}


@pytest.fixture
def make_evaluation(make_run):
    """make_evaluation("name", {"drift": {"reason": "..."}}) -> the folder of an evaluation with these results in the place of all that there is."""

    def make(name="evaluated", results=None):
        work = make_run(name)
        frozen, result = (json.loads((work / file).read_text()) for file in ("config.json", "result.json"))
        write_json(work / "config.json", frozen | {"verb": "evaluate"})
        write_json(work / "result.json", {"model": result["after"], **MEASURED, **(results or {}), "seconds": {"evaluate": 1.0, "total": 1.0}})
        (work / "answers" / "after.jsonl").rename(work / "answers" / "model.jsonl")
        for file in ("before.json", "metrics.jsonl", "answers/before.jsonl"):
            (work / file).unlink()
        return work

    return make


def test_an_evaluation_alone(make_evaluation):
    found = parsed(page.write([make_evaluation()]))
    assert "The model before" in found.text and "Round by round" not in found.text and "0.4375 [0.250 .. 0.625], 8 rows" in found.text
    worst = MEASURED["leakage"]["prefilled"]["measures"]["worst"]
    for words in (
        f"{worst['mean']:.3f} [{worst['low']:.3f}, {worst['high']:.3f}]", "100 answers sampled", "Mean sample", "M_sigma",
        "0.250 [0.000, 0.500]", "0.167", "Near less far", "-0.031 [-0.100, +0.040] 12 rows", "-0.077",
        "-0.0125 [-0.0200, +0.0010] 12 rows, 345 words, standard deviation 0.0625", "Other words", "retain model", "update 10 runs/evaluated: 0.5",
    ):  # fmt: skip
        assert words in found.text, words
    absent = found.text.split("Not measured A good number")[1]
    for topic in ("Membership attacks", "Forget quality", "Leakage", "Relearning", "Drift", "Neighbouring", "Least likely"):
        assert topic not in absent, topic


def test_what_an_evaluation_could_not_compute(make_evaluation):
    reason = {"reason": "no <b>reason</b>"}
    missing = {"tofu": reason, "least_likely_option": reason, "leakage": {"sampled": reason, "prefilled": reason}, "drift": reason}
    quality = TOFU | {"forget_quality": {"value": None, "rows": 0, "reason": "no log of a retain model was given"}}
    bare, no_retain = make_evaluation("bare", missing), make_evaluation("no_retain", {"tofu": quality})
    text = parsed(page.write([bare])).text
    assert "not computed: no <b>reason</b>" in text and "Relearning" in text
    absent = text.split("Not measured A good number")[1]
    assert all(words in absent for words in ("Membership attacks", "Least likely option", "Leakage under sampling", "Drift in unrelated text"))
    assert "Neighbouring knowledge" not in absent
    text = parsed(page.write([bare, no_retain])).text
    assert "not computed: no log of a retain model was given" in text and "Drift in unrelated text (runs/bare)" in text
    assert "Forget quality :" in text and "Membership attacks (runs/bare)" in text


def test_leakage_of_several_evaluations_is_spread_side_by_side(make_evaluation, make_run):
    before, after = make_evaluation("before", {"leakage": {"sampled": leaks(0, 1), "prefilled": leaks(0, 1)}}), make_evaluation("after")
    found = parsed(page.write([before, after]))
    pillars = [attrs["class"] for attrs in found.of("rect") if "pillar" in attrs.get("class", "")]
    assert {"pillar c0", "pillar c1", "pillar before", "pillar after"} >= set(pillars) >= {"pillar c0", "pillar c1"}
    mixed = parsed(page.write([make_run("unlearned"), after])).text
    assert "not computed" in mixed and "Leakage under sampling (runs/unlearned)" in mixed


def test_an_unlearning_run_shows_its_neighbours(make_run):
    work = make_run()
    for when in ("before", "after"):
        rows = [r for r in read_lines(work / "answers" / f"{when}.jsonl") if r["set"] != "retain"]
        retain = [
            {"set": "retain", "question": f"{'Where was writer' if i < 4 else 'What does'} {i}?", "answer": "a", "truth": "a"} for i in range(12)
        ]
        scores = [1.0 if when == "before" or i > 3 else 0.25 for i in range(12)]
        write_lines(work / "answers" / f"{when}.jsonl", rows + [r | {"rouge_l_recall": s} for r, s in zip(retain, scores)])
    found = read.read_run(work, "run").neighbours
    assert found["recall"]["near"]["mean"] == 0.25 and found["change"]["difference"]["mean"] == -0.75
    assert "Neighbouring knowledge" in parsed(page.write([work])).text


def test_several_runs_side_by_side(make_run, tmp_path):
    one, two = make_run("one"), make_run("two", **{"seed": 8})
    rows = read_lines(two / "answers" / "before.jsonl")
    write_lines(two / "answers" / "before.jsonl", [rows[0] | {"answer": "Another original."}, *rows[1:]])
    file = page.write([one, two], tmp_path / "both.html")
    found = parsed(file)
    assert not (one / "report.html").exists() and "Another original." in found.cells
    assert {"runs/one", "runs/two"} <= {t.strip() for t in found.texts}
    assert sum(attrs.get("class") == "line" for attrs in found.of("path")) == 2 * 6
    assert sum("differ" in (attrs.get("class") or "") for attrs in found.of("tr")) == 1, "the seed"
    with pytest.raises(UserError, match="twice"):
        page.write([one, one])


def test_folders_that_are_no_run(cli, make_run, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"architectures": []}')
    tuned = make_run("tuned")
    write_json(tuned / "config.json", json.loads((tuned / "config.json").read_text()) | {"verb": "finetune"})
    broken = make_run("broken")
    (broken / "answers" / "after.jsonl").write_text('{"question": 1}\n')
    cases = [
        ([], "name the workdir"), (["/no/such"], "no such folder"), ([tmp_path / "thesis"], "holds no run"), ([tmp_path / "model"], "not of a run"),
        ([make_run("demo/unlearned").parent], "demo/unlearned?"),
        ([tuned], "'finetune'"), ([broken], "row 1"), ([make_run(), f"--output={tmp_path}/no/such.html"], "cannot be written"),
    ]  # fmt: skip
    for arguments, words in cases:
        said = cli("report", *arguments)
        assert said.code == 2 and words in said.err and said.err.count("\n") == 1, said
    assert list((tmp_path / "thesis").iterdir()) == []


def test_the_verb(cli, make_run, tmp_path):
    work = make_run()
    said = cli("report", work)
    assert said.code == 0 and str(work / "report.html") in said.out
    assert cli("report", f"--workdir={work}", f"--output={tmp_path / 'mine.html'}").code == 0 and (tmp_path / "mine.html").exists()
    said = cli("evaluate", work, f"--workdir={tmp_path / 'x'}")
    assert said.code == 2 and "is not a flag" in said.err, "other verbs take no workdirs after them"
    assert "report" in cli("--help").out


def test_no_device_is_started(make_run, python):
    code = "import sys; sys.argv = ['pmc-jax', 'report', sys.argv[1]]\nfrom pmc_jax import main; main.main(); sys.exit('jax' in sys.modules)"
    assert python(code, make_run()).returncode == 0


def test_curves_have_gaps_and_round_ticks():
    assert curves.ticks(0, 1) == pytest.approx([0, 0.5, 1]) or curves.ticks(0, 1)[-1] == pytest.approx(1)
    assert curves.ticks(0, 2.3)[-1] >= 2.3 and curves.whole_ticks(0) == [0] and curves.whole_ticks(14) == [0, 5, 10]
    line = curves.Line("a", [(0, 1.0), (1, None), (2, float("nan")), (3, 2.0), (4, 1.0)], [(0.9, 1.1), *[(None, None)] * 2, (1.8, 2.2), (None, None)])
    found = curves.chart("t", "m", [line])["lines"][0]
    assert found["d"].count("M") == 2 and found["band"].count("M") == 2 and found["last"] == "1"
    assert curves.chart("t", "m", [curves.Line("a", [(0, None)])]) is None
    before, after = (group["of"] for group in curves.histogram([("before", [0.0, 1.0, 1.0]), ("now", [0.3])], ["before", "after"])["bars"])
    assert [b["height"] > 0 for b in before] == [True, *[False] * 8, True] and after[3]["height"] > 0


@pytest.fixture
def chromium(tmp_path):
    """chromium(address, *flags) -> CompletedProcess of a headless browser with a profile of its own."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not found:
        pytest.skip("no chromium on PATH")

    def run(address, *arguments):
        usual = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={tmp_path / 'profile'}"]
        usual += ["--enable-logging=stderr", "--virtual-time-budget=3000", "--disable-background-networking"]
        return subprocess.run([found, *usual, *arguments, address], capture_output=True, text=True, timeout=120)

    return run


def shown(dom):
    """The questions whose rows are not hidden, and the page's title."""
    rows = re.findall(r'<tr data-set="[^"]*"([^>]*)>.*?<div class="text find" dir="auto">(.*?)</div>', dom, re.S)
    return [question for attributes, question in rows if "hidden" not in attributes]


def test_in_a_browser(make_run, make_evaluation, chromium, tmp_path):
    file = page.write([make_run("one"), make_evaluation("two")], tmp_path / "report.html")
    everything = chromium(file.as_uri(), "--dump-dom")
    assert "CONSOLE" not in everything.stderr, everything.stderr
    assert len(shown(everything.stdout)) == 24 and "24 of 24 rows" in everything.stdout
    assert "<title>Unlearning report" in everything.stdout, "no answer changed the title"
    one = chromium(f"{file.as_uri()}#q=cetin%20yeldegir", "--dump-dom")
    assert shown(one.stdout) == ["Where was writer 4 born?"] and "1 of 24 rows" in one.stdout, "found without its accents"
    assert shown(chromium(f"{file.as_uri()}#q=nowhere", "--dump-dom").stdout) == []
    phone = tmp_path / "phone.html"  # a headless window is never narrower than 500
    phone.write_text(f'<body style="margin: 0"><iframe src="{file.name}" style="width: 390px; height: 4000px; border: 0"></iframe>')
    for width, source in (("phone", phone), ("desktop", file)):
        for scheme, number in (("light", 1), ("dark", 0)):
            picture = tmp_path / f"{width}-{scheme}.png"
            flags = [f"--blink-settings=preferredColorScheme={number}", "--window-size=1280,4000", f"--screenshot={picture}"]
            assert "CONSOLE" not in chromium(source.as_uri(), *flags).stderr
            assert picture.stat().st_size > 10_000
