"""The report: what a workdir says is in it, escaped; what is absent is said; it works in a browser."""

import json
import re
import shutil
import subprocess

import pytest
from report_pages import HOSTILE, Page, parsed

from pmc_jax.errors import UserError
from pmc_jax.evaluate.answers import Evaluation
from pmc_jax.evaluate.interval import mean_with_interval
from pmc_jax.report import answers, curves, page, read
from pmc_jax.tracking.files import read_lines, write_json, write_lines


def test_what_a_model_says_stays_text(make_run):
    file = page.write([make_run()])
    shown = parsed(file)
    assert file.name == "report.html" and len(shown.of("script")) == 1 and not shown.of("img")
    assert all(
        answer.replace("\x00", "\ufffd") in [c.replace("\x00", "\ufffd") for c in shown.cells] for answer in HOSTILE
    ), "each answer, whole"
    assert not [attrs for _, attrs in shown.elements if any(name.startswith("on") for name in attrs)]
    assert "pick of round 0 </script>" in shown.cells and "<b>stones</b>" in shown.cells
    assert not [
        attrs
        for _, attrs in shown.elements
        for name in ("src", "href")
        if not (attrs.get(name) or "#").startswith(("#", "data:"))
    ]


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
    _, low, high, _ = mean_with_interval(
        [r["rouge_l_recall"] for r in read_lines(work / "answers" / "after.jsonl") if r["set"] == "forget"]
    )
    assert f"[{low:.3f}, {high:.3f}]" in text and "12 rows" in text
    for when in ("before", "after"):
        low, high = result[when]["intervals"]["unlearn_quality"]
        assert f"[{low:.1f}, {high:.1f}]" in text
    assert "5 of 6 retain answers" in text and "1 of 1 world facts answers" in text and "1 changed" in text
    assert "1:03 min" in text and "60.2" in text and "e838d6" in text and "80% of the forget questions" in text
    for when in ("before", "after"):
        for name in ("forget", "retain"):
            assert f"{result[when]['content_recall'][name]['mean']:.3f}" in text, (when, name)
    assert "Content recall Forget" in text and "Forget, content recall" in text
    assert "of letters and digits ROUGE saw" in text, "one answer is in Arabic and Japanese"
    assert (
        "not evaluated" in text
        and "Sets: real authors" in text
        and "Membership attacks" in text
        and "Relearning" in text
    )


def test_the_page_is_a_function_of_the_run(make_run, tmp_path):
    work = make_run()
    first = page.write([work], tmp_path / "a.html").read_bytes()
    assert page.write([work], tmp_path / "b.html").read_bytes() == first


def test_marked_words_are_those_that_rouge_counts():
    truth = "The birthplace of Çetin is Izmir, Turkey."
    answer = "His birthplaces: IZMIR; he never saw Turkey again."
    marked = [piece for piece, mark in answers.counted(answer, truth) if mark]
    assert marked == ["birthplaces: IZMIR", "Turkey"], "stemmed, in any case, in order"
    assert "".join(piece for piece, _ in answers.counted(answer, truth)) == answer
    assert answers.counted("", truth) == [] and answers.counted("東京", truth) == [("東京", False)]


def test_marked_words_are_those_that_carry_the_content():
    def marked(*texts):
        pieces = answers.carried(*texts)
        assert "".join(piece for piece, _ in pieces) == texts[0]
        return [piece for piece, mark in pieces if mark]

    truth = "Çetin was born in Izmir, Turkey."
    assert marked("Turkish born, IZMIR; Turkey!", "Where was Çetin born?", truth) == ["IZMIR", "Turkey"], "in any order"
    assert marked("Она из Твери.", "Откуда она?", "Из Твери она.") == ["из", "Твери"]
    assert marked("在北京出生。", "她在哪里?", "她出生于北京") == ["北京出生"] and marked("东北", "", "北京") == []
    assert marked("हिन्दी में", "", "हिन्दी") == ["हिन्दी"] and marked("", "", "x") == []


def test_content_recall_as_the_score_of_a_page(make_run):
    """The same run by either score: numbers, marks and the spread are those of the score; a row without is no error."""
    work = make_run()
    rows = {when: read_lines(work / "answers" / f"{when}.jsonl") for when in ("before", "after")}
    result = json.loads((work / "result.json").read_text())
    for when in rows:
        rows[when][0] |= {"truth": "", "rouge_l_recall": None, "content_recall": None}
        result[when] = Evaluation(rows[when], "ground truth", "content_recall").summary()
        write_lines(work / "answers" / f"{when}.jsonl", rows[when])
    write_json(work / "result.json", result)
    text = parsed(page.write([work])).text
    assert "11 of 12 rows" in text and "that carry what the truth tells" in text and "Content recall Forget" in text
    assert "ROUGE-L recall Forget" not in text and "Forget, content recall" in text
    now = result["after"]["content_recall"]["forget"]["mean"]
    assert f"now {now:.3f}, before 1.000" in text and f"{result['after']['unlearn_quality']:.1f}" in text


def test_kept_answers_leave_out_picks_that_were_not_stored(make_run):
    steps = read.read_run(make_run(), "run").kept["Where was writer 0 born?"]
    assert [s["round"] for s in steps] == [0, 1, 3, 4]


def test_an_unfinished_run_says_so(make_run):
    work = make_run()
    for file in ("result.json", "answers/after.jsonl"):
        (work / file).unlink()
    text = parsed(page.write([work])).text
    assert (
        "This run is not finished" in text
        and "in epoch 5 of 30" in text
        and "not evaluated yet" in text
        and "The model now" in text
    )
    (work / "before.json").unlink()
    (work / "answers" / "before.jsonl").unlink()
    assert "Forget loss" in parsed(page.write([work])).text, "rounds alone are something"
    (work / "metrics.jsonl").unlink()
    with pytest.raises(UserError, match="has not measured anything yet"):
        page.write([work])


def test_several_runs_side_by_side(make_run, tmp_path):
    one, two = make_run("one"), make_run("two", **{"seed": 8})
    rows = read_lines(two / "answers" / "before.jsonl")
    write_lines(two / "answers" / "before.jsonl", [rows[0] | {"answer": "Another original."}, *rows[1:]])
    file = page.write([one, two], tmp_path / "both.html")
    shown = parsed(file)
    assert not (one / "report.html").exists() and "Another original." in shown.cells
    assert {"runs/one", "runs/two"} <= {t.strip() for t in shown.texts}
    assert sum(attrs.get("class") == "line" for attrs in shown.of("path")) == 2 * 6
    assert sum("differ" in (attrs.get("class") or "") for attrs in shown.of("tr")) == 1, "the seed"
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
        ([], "name the workdir"),
        (["/no/such"], "no such folder"),
        ([tmp_path / "thesis"], "holds no run"),
        ([tmp_path / "model"], "not of a run"),
        ([make_run("demo/unlearned").parent], "demo/unlearned?"),
        ([tuned], "'finetune'"),
        ([broken], "row 1"),
        ([make_run(), f"--output={tmp_path}/no/such.html"], "cannot be written"),
    ]
    for arguments, words in cases:
        said = cli("report", *arguments)
        assert said.code == 2 and words in said.err and said.err.count("\n") == 1, said
    assert list((tmp_path / "thesis").iterdir()) == []


def test_the_verb(cli, make_run, tmp_path):
    work = make_run()
    said = cli("report", work)
    assert said.code == 0 and str(work / "report.html") in said.out
    assert (
        cli("report", f"--workdir={work}", f"--output={tmp_path / 'mine.html'}").code == 0
        and (tmp_path / "mine.html").exists()
    )
    said = cli("evaluate", work, f"--workdir={tmp_path / 'x'}")
    assert said.code == 2 and "is not a flag" in said.err, "other verbs take no workdirs after them"
    assert "report" in cli("--help").out


def test_no_device_is_started(make_run, python):
    code = (
        "import sys; sys.argv = ['pmc-jax', 'report', sys.argv[1]]\nfrom pmc_jax import main; main.main(); "
        "sys.exit('jax' in sys.modules)"
    )
    assert python(code, make_run()).returncode == 0


def test_curves_have_gaps_and_round_ticks():
    assert curves.ticks(0, 1) == pytest.approx([0, 0.5, 1]) or curves.ticks(0, 1)[-1] == pytest.approx(1)
    assert curves.ticks(0, 2.3)[-1] >= 2.3 and curves.whole_ticks(0) == [0] and curves.whole_ticks(14) == [0, 5, 10]
    line = curves.Line(
        "a",
        [(0, 1.0), (1, None), (2, float("nan")), (3, 2.0), (4, 1.0)],
        [(0.9, 1.1), *[(None, None)] * 2, (1.8, 2.2), (None, None)],
    )
    drawn = curves.chart("t", "m", [line])["lines"][0]
    assert drawn["d"].count("M") == 2 and drawn["band"].count("M") == 2 and drawn["last"] == "1"
    assert curves.chart("t", "m", [curves.Line("a", [(0, None)])]) is None
    before, after = (
        group["of"]
        for group in curves.histogram([("before", [0.0, 1.0, 1.0]), ("now", [0.3])], ["before", "after"])["bars"]
    )
    assert [b["height"] > 0 for b in before] == [True, *[False] * 8, True] and after[3]["height"] > 0


@pytest.fixture
def chromium(tmp_path):
    """chromium(address, *flags) -> CompletedProcess of a headless browser with a profile of its own."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("no chromium on PATH")

    def run(address, *arguments):
        usual = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={tmp_path / 'profile'}",
        ]
        usual += ["--enable-logging=stderr", "--virtual-time-budget=3000", "--disable-background-networking"]
        return subprocess.run([browser, *usual, *arguments, address], capture_output=True, text=True, timeout=600)

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
    assert shown(one.stdout) == ["Where was writer 4 born?"] and "1 of 24 rows" in one.stdout, (
        "found without its accents"
    )
    assert shown(chromium(f"{file.as_uri()}#q=nowhere", "--dump-dom").stdout) == []
    phone = tmp_path / "phone.html"  # a headless window is never narrower than 500
    phone.write_text(
        f'<body style="margin: 0"><iframe src="{file.name}" style="width: 390px; height: 4000px; border: 0"></iframe>'
    )
    for width, source in (("phone", phone), ("desktop", file)):
        for scheme, number in (("light", 1), ("dark", 0)):
            picture = tmp_path / f"{width}-{scheme}.png"
            flags = [
                f"--blink-settings=preferredColorScheme={number}",
                "--window-size=1280,4000",
                f"--screenshot={picture}",
            ]
            assert "CONSOLE" not in chromium(source.as_uri(), *flags).stderr
            assert picture.stat().st_size > 10_000
