"""Win rates, and the two commands."""

import pytest
from needs import SECONDS, need

need("torch", "transformers")

import json
import re
import subprocess
import sys

import scipy.stats
from tiny_models import PROMPTS

from vgf.cli import main as vgf
from vgf.support.errors import VGFError
from vgf.text import judge, load_judge
from vgf.text.judging import Verdict, methods

TINY = [
    "--particles",
    "2",
    "--steps",
    "0",
    "2",
    "--max-new-tokens",
    "5",
    "--step-size",
    "0.5",
    "--decoding-weight",
    "0.05",
]


def line(prompt, base, best, flow):
    return {
        "prompt": prompt,
        "samples": [{"response": base}, {"response": best}],
        "best_of_n": {"response": best},
        "budgets": [{"steps": 5, "response": flow}],
    }


@pytest.fixture
def responses(tmp_path):
    rows = [
        line("p", "b", "bb", "bbb"),
        line("q", "bb", "bb", "b"),
        line("r", "b", "b", "bbbb"),
        line("s", "bbb", "bbb", "bbb"),
    ]
    path = tmp_path / "out.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def by_length(prompts, responses):
    return [len(response) for response in responses]


def test_counts_and_intervals(responses):
    best, flow = judge(responses, {"length": by_length})
    assert (best.method, best.wins, best.ties, best.losses) == ("best_of_n", 1, 3, 0)
    assert (flow.method, flow.wins, flow.ties, flow.losses) == ("L=5", 2, 1, 1)
    assert flow.rate == pytest.approx(5 / 8)
    assert flow.decided_rate == pytest.approx(2 / 3)
    wilson = scipy.stats.binomtest(2, 3).proportion_ci(method="wilson")
    assert flow.decided_interval == pytest.approx((wilson.low, wilson.high))
    low, high = flow.interval
    assert low < 5 / 8 < high
    # that of a rate between those of 2 and of 3 wins in 4
    between = [scipy.stats.binomtest(k, 4).proportion_ci(method="wilson").low for k in (2, 3)]
    assert between[0] < low < between[1]
    assert flow.mean == pytest.approx(11 / 4)
    other = judge(responses, {"length": by_length}, "best_of_n")
    assert [v.method for v in other] == ["base", "L=5"]
    assert (other[0].wins, other[0].losses) == (0, 1)
    undecided = Verdict("j", "m", "base", 0, 4, 0, 0.0)
    assert undecided.rate == 0.5
    assert undecided.decided_rate is None
    assert undecided.decided_interval is None


def test_a_judge_is_given_prompts_and_responses(responses):
    seen = []
    judge(responses, {"any": lambda *both: seen.append(both) or [0.0] * 4})
    assert seen[0] == (["p", "q", "r", "s"], ["b", "bb", "b", "bbb"])
    assert len(seen) == 3


@pytest.mark.parametrize("wrong", [[1.0], [[1.0]] * 4, [1.0, 2.0, 3.0, float("nan")]])
def test_judges_that_give_no_scores(responses, wrong):
    with pytest.raises(VGFError, match="one finite number for each of 4"):
        judge(responses, {"wrong": lambda *_: wrong})


def test_files_that_hold_no_responses(responses, tmp_path):
    with pytest.raises(
        VGFError, match="no method or file is 'L=9'; the file has base, best_of_n, L=5"
    ):
        judge(responses, {"length": by_length}, "L=9")
    text = responses.read_text()
    responses.write_text(text + '{"prompt": "t"}\n')
    with pytest.raises(VGFError, match="line 5 was not written by vgf align"):
        methods(responses)
    responses.write_text(text + json.dumps({**line("t", "", "", ""), "budgets": []}) + "\n")
    with pytest.raises(VGFError, match="line 5 has other budgets"):
        methods(responses)
    responses.write_text("")
    with pytest.raises(VGFError, match="holds no line"):
        methods(responses)


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_reference_in_a_field_with_a_records_name(tmp_path):
    rows = [{**line("p", "b", "bb", "bbb"), "response": "bbb", "input": {"response": "bbbbbb"}}]
    path = written(tmp_path / "out.jsonl", rows)
    found = judge(path, {"length": by_length}, "reference", "response")
    assert [one.losses for one in found] == [1, 1, 1]  # "base", "best_of_n", "L=5"
    with pytest.raises(VGFError, match="has no text 'reward'"):
        judge(path, {"length": by_length}, "reference", "reward")


def test_an_index_is_one_prompts(responses, tmp_path):
    rows = [json.loads(text) for text in responses.read_text().splitlines()]
    rows = [{**row, "index": i, "settings": {"seed": 0}} for i, row in enumerate(rows)]
    first = written(tmp_path / "a.jsonl", rows)
    others = [{**row, "prompt": "other", "settings": {"seed": 1}} for row in rows]
    second = written(tmp_path / "b.jsonl", others)
    with pytest.raises(VGFError, match="has another prompt 1 than"):
        judge([first, second], {"length": by_length})
    theirs = [{"index": i, "prompt": row["prompt"], "response": "b"} for i, row in enumerate(rows)]
    against = written(tmp_path / "c.jsonl", theirs)
    assert [one.missing for one in judge(first, {"length": by_length}, str(against))] == [0] * 3
    theirs[1] = {"index": 1, "prompt": "q", "error": "too long"}
    found = judge(first, {"length": by_length}, str(written(against, theirs)))
    assert [(one.missing, one.prompts) for one in found] == [(1, 3)] * 3
    theirs[1] = {"index": 1, "prompt": "wholly other", "response": "b"}
    with pytest.raises(VGFError, match="line 2 has another prompt 2"):
        judge(first, {"length": by_length}, str(written(against, theirs)))
    theirs[1] = {"index": [1], "prompt": "q", "response": "b"}  # the prompt tells it
    assert len(judge(first, {"length": by_length}, str(written(against, theirs)))) == 3
    with pytest.raises(VGFError, match='has no "index" that is a number, and no "prompt"'):
        judge(first, {"length": by_length}, str(written(against, [{"response": "b"}])))


def test_both_sides_are_read_at_the_token_that_align_read(tmp_path):
    class Reader:
        def __init__(self):
            self.read = set()

        def items(self, items):
            self.read |= {item.reward_token for item in items}
            return [0.0] * len(items)

    settings = {"seed": 0, "reward_token": "last"}
    rows = [{**line("p", "b", "bb", "bbb"), "index": 0, "settings": settings, "reference": "c"}]
    path = written(tmp_path / "out.jsonl", rows)
    other = written(tmp_path / "other.jsonl", [{"index": 0, "response": "b"}])
    for against in ("base", "reference", str(other)):
        reader = Reader()
        judge(path, {"own": reader}, against)
        assert reader.read == {"last"}


def test_judges_that_give_words(responses):
    scores = lambda prompts, responses: ["a"] * len(responses)
    pairs = lambda prompts, ours, theirs: ["A"] * len(ours)
    for words in (scores, pairs):
        with pytest.raises(VGFError, match="judge own must give a number for each"):
            judge(responses, {"own": words})


def test_a_reward_model_judges_padded_batches_as_single_rows(folders, models, made):
    score = load_judge(str(folders.rm), "cpu", batch_tokens=30)
    found = score(PROMPTS, [" w9 w8", " w7", ""])
    rows = [
        made.tokenizer(p + r)["input_ids"]
        for p, r in zip(PROMPTS, [" w9 w8", " w7", ""], strict=True)
    ]
    assert found == pytest.approx([float(models.reward.rewards([row])[0]) for row in rows])
    with pytest.raises(VGFError, match="prompt and response 2 are empty"):
        score(["w1", ""], ["", ""])


def test_a_label_is_of_the_judges_with_several_outputs(folders):
    assert load_judge(str(folders.rm), "cpu", rm_label="POS", only=False).label is None
    with pytest.raises(VGFError, match="has no label 'POS'"):
        load_judge(str(folders.rm), "cpu", rm_label="POS")


def test_a_label_that_no_judge_has_is_refused(folders, responses, capsys):
    words = ["judge", str(responses), "--judge", str(folders.rm), "--judge", str(folders.rm)]
    assert vgf([*words, "--rm-label", "POS"]) == 2
    assert "no judge has several outputs" in capsys.readouterr().err


def test_a_function_of_ones_own(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("def score(prompts, responses):\n    return [len(r) for r in responses]\n")
    assert load_judge(f"{path}:score")(["a"], ["bcd"]) == [3]
    with pytest.raises(VGFError, match="has no skore; did you mean score"):
        load_judge(f"{path}:skore")


def test_vader(monkeypatch):
    for name in ("vaderSentiment", "vaderSentiment.vaderSentiment"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(VGFError, match="pip install vaderSentiment"):
        load_judge("vader")
    monkeypatch.undo()
    pytest.importorskip("vaderSentiment")
    good, bad = load_judge("vader")(["It was "] * 2, ["wonderful.", "terrible."])
    assert good > 0 > bad


# --- the commands -------------------------------------------------------------------------------


def test_align_and_judge(folders, prompt_file, tmp_path, capsys):
    out, numbers = tmp_path / "out.jsonl", tmp_path / "numbers.json"
    words = [
        "align",
        "--sft",
        str(folders.sft),
        "--rm",
        str(folders.rm),
        "--prompts",
        str(prompt_file),
        "--out",
        str(out),
        *TINY,
    ]
    assert vgf(words) == 0
    text = out.read_text()
    assert [json.loads(row)["prompt"] for row in text.splitlines()] == PROMPTS
    assert vgf(words) == 0
    assert out.read_text() == text
    assert vgf([*words, "--seed", "3"]) == 2
    assert "was made with seed 0, not 3" in capsys.readouterr().err
    judging = ["judge", str(out), "--judge", str(folders.rm), "--judge", f"{__file__}:by_length"]
    assert vgf([*judging, "--json", str(numbers), "--device", "cpu"]) == 0
    table = capsys.readouterr().out
    assert "against base, 3 prompts" in table
    assert len([row for row in table.splitlines() if "by_length" in row]) == 6
    assert "3 of 3 lines, 3 of 3 prompts" in table
    found = json.loads(numbers.read_text())
    tests, found = [row for row in found if "other" in row], [row for row in found if "wins" in row]
    assert [row["method"] for row in found] == ["best_of_n", "L=0", "L=2"] * 2
    assert len(tests) == 6
    assert all(row["wins"] + row["ties"] + row["losses"] == 3 for row in found)
    assert found[0]["losses"] == 0  # the best by the reward model, by the reward model


def test_what_was_calibrated_is_said(folders, prompt_file, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    words = [
        "align",
        "--sft",
        str(folders.sft),
        "--rm",
        str(folders.rm),
        "--prompts",
        str(prompt_file),
        "--out",
        str(out),
        "--particles",
        "2",
        "--max-new-tokens",
        "4",
        "--steps",
        "0",
        "1",
        "--decoding-weight",
        "0",
        "--moved-change",
        "0.99",
    ]
    assert vgf(words) == 0
    shown = capsys.readouterr().out
    assert "--decoding-weight calibrated" not in shown
    assert "--step-size calibrated to 9.8" in shown
    assert "the end of the range: --moved-change is not reached" in shown


def test_settings_come_from_a_file_and_flags_win(folders, prompt_file, tmp_path):
    config = tmp_path / "align.toml"
    config.write_text('particles = 2\nsteps = [1]\nkernel = "sequence"\nseed = 1\n')
    out = tmp_path / "out.jsonl"
    words = [
        "align",
        "--sft",
        str(folders.sft),
        "--rm",
        str(folders.rm),
        "--prompts",
        str(prompt_file),
        "--out",
        str(out),
        "--config",
        str(config),
        "--seed",
        "2",
        "--kernel",
        "none",
        *TINY[5:],
    ]
    assert vgf(words) == 0
    settings = json.loads(out.read_text().splitlines()[0])["settings"]
    assert settings["particles"] == 2
    assert settings["steps"] == [1]
    assert (settings["seed"], settings["kernel"]) == (2, "none")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--particle-step", "fast"], "--particle-step is 'fast'"),
        (["--kernle", "none"], "did you mean --kernel"),
        (["--particles", "many"], "'many' is not a whole number"),
        (["--sft", "/no/such/folder"], "/no/such/folder: no such folder"),
        (["--prompts", "/no/such.jsonl"], "/no/such.jsonl: cannot be read"),
        (["--out", "PROMPTS"], "is the file of prompts"),
        (["--config", "CONFIG"], "unknown key particels; did you mean particles"),
    ],
)
def test_mistakes_on_the_command_line(folders, prompt_file, tmp_path, capsys, words, message):
    config = tmp_path / "wrong.toml"
    config.write_text("particels = 2\n")
    named = {"PROMPTS": str(prompt_file), "CONFIG": str(config)}
    words = [named.get(word, word) for word in words]
    before = prompt_file.read_text()
    assert (
        vgf(
            [
                "align",
                "--sft",
                str(folders.sft),
                "--rm",
                str(folders.rm),
                "--prompts",
                str(prompt_file),
                "--out",
                str(tmp_path / "out.jsonl"),
                *words,
            ]
        )
        == 2
    )
    found = capsys.readouterr().err
    assert message in found
    assert found.count("\n") == 1
    assert prompt_file.read_text() == before
    assert not (tmp_path / "out.jsonl").exists()


def test_every_setting_has_a_flag(capsys):
    from dataclasses import fields

    from vgf.text import AlignSettings

    with pytest.raises(SystemExit):
        vgf(["align", "--help-all"])
    text = capsys.readouterr().out
    for entry in fields(AlignSettings):
        assert re.search(f"--{entry.name.replace('_', '-')}[ ,]", text)
    with pytest.raises(SystemExit):
        vgf(["align", "--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_without_the_extra_it_is_named():
    code = (
        "import sys; sys.modules['transformers'] = None\n"
        "import vgf.text.settings, vgf.text.judging\n"
        "from vgf.support.errors import VGFError\n"
        "try:\n    vgf.text.align\n"
        "except VGFError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=SECONDS
    )
    assert "pip install 'vgf[text]'" in done.stdout


def test_importing_the_settings_brings_in_no_framework():
    code = (
        "import sys, vgf, vgf.text.settings, vgf.text.judging, vgf.cli.align, vgf.cli.judge\n"
        "heavy = {'torch', 'transformers', 'hypothesis', 'jax'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=SECONDS)
