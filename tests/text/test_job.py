"""A job of many prompts: one writer, shards, fields, long and empty and bad prompts, the cache."""

import pytest
from needs import SECONDS, need

need("torch", "transformers")

import dataclasses
import json
import subprocess
import sys

import torch
from tiny_models import PROMPTS, base_model, make_tokenizer, reward_model

from vgf.cli import main as vgf
from vgf.support.errors import VGFError
from vgf.text import AlignSettings, align, judge, pair, read_prompts
from vgf.text.judging import read_answers
from vgf.text.prompts import as_prompt

change = dataclasses.replace


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_shard_without_a_prompt_is_said(folders, tmp_path, capsys):
    file, out = tmp_path / "prompts.jsonl", tmp_path / "out.jsonl"
    file.write_text('{"prompt": "w1"}\n')
    words = ["align", "--sft", str(folders.sft), "--rm", str(folders.rm), "--prompts", str(file)]
    assert vgf([*words, "--out", str(out), "--shard", "2/2", "--max-new-tokens", "5"]) == 0
    assert "--shard 2/2 holds none of the 1 prompts" in capsys.readouterr().out
    assert not out.exists() or not out.read_text()


def test_byte_order_marks_and_both_ends_of_lines(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "w1"}\r\n\r\n{"prompt": "w2"}\r\n')
    assert [prompt.content for prompt in read_prompts(path)] == ["w1", "w2"]


def test_fields_of_the_prompts_are_kept(models, settings, tmp_path):
    rows = [
        {"prompt": "w1", "id": "a", "reference": "w3", "meta": {"x": [1, float("nan")]}},
        {"prompt": "w2", "reward": "theirs", "error": 3},
    ]
    out = tmp_path / "out.jsonl"
    align(models, rows, settings, out)
    first, second = lines(out)
    assert (first["id"], first["reference"], first["meta"]) == ("a", "w3", {"x": [1, None]})
    assert "input" not in first
    assert second["input"] == {"reward": "theirs", "error": 3}
    assert isinstance(second["reward"], float)
    assert "error" not in second


def test_shards_are_the_whole_and_duplicates_are_refused(models, settings, tmp_path):
    prompts = [f"w{i}" for i in range(7)]
    whole = align(models, prompts, settings)
    files = [tmp_path / f"{i}.jsonl" for i in (1, 2, 3)]
    for i, file in enumerate(files, 1):
        align(models, prompts, change(settings, shard=f"{i}/3"), file)
    found = sorted((row for file in files for row in lines(file)), key=lambda row: row["index"])
    assert [row["index"] for row in found] == list(range(7))
    assert [row["response"] for row in found] == [row["response"] for row in whole]
    score = {"length": lambda prompts, responses: list(map(len, responses))}
    answers = read_answers(files)
    assert answers.seen() == "7 of 7 lines, 7 of 7 prompts"
    assert read_answers(files[:1]).seen() == "3 of 3 lines, 3 of 7 prompts"
    assert sum((v.wins, v.ties, v.losses) == (0, 0, 0) for v in judge(files, score)) == 0
    with pytest.raises(VGFError, match=r"1\.jsonl: line 1 is prompt 1, as is .*1\.jsonl: line 1"):
        read_answers([files[0], files[1], files[0]])
    with pytest.raises(VGFError, match="line 1 is of another shard"):
        align(models, prompts, change(settings, shard="2/3"), files[0])
    files[0].write_text(files[0].read_text() + files[0].read_text())
    with pytest.raises(VGFError, match="line 4 is for prompt 1, as one before"):
        align(models, prompts, change(settings, shard="1/3"), files[0])


@pytest.mark.parametrize("wrong", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_shards_that_are_refused(settings, wrong):
    with pytest.raises(VGFError, match="write i/n"):
        change(settings, shard=wrong)


def test_one_process_writes_a_file(models, settings, tmp_path):
    out = tmp_path / "out.jsonl"
    code = (
        "import sys\nfrom pathlib import Path\nfrom vgf.support.locks import only_writer\n"
        f"path = Path({str(out)!r})\n"
        "with only_writer(path, path.with_name(f'.{path.name}.lock')):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(VGFError, match="is being written to by another process"):
            align(models, PROMPTS, settings, out)
        assert not out.exists()
    finally:
        other.communicate("", timeout=SECONDS)
    assert len(align(models, PROMPTS, settings, out)) == 3
    assert [path.name for path in tmp_path.glob("*out*")] == ["out.jsonl"]


def test_a_bad_prompt_does_not_end_the_job(models, settings, tmp_path, capsys):
    prompts = ["w1", " ", "w2 " * 38, {"prompt": "w3", "id": 3}, [{"role": "user", "content": "x"}]]
    out = tmp_path / "out.jsonl"
    found = align(models, prompts, settings, out)
    assert [row["index"] for row in found] == list(range(5))
    assert [("error" in row) for row in found] == [False, True, True, False, True]
    assert "is empty" in found[1]["error"]
    assert "is too long: 38 tokens" in found[2]["error"]
    assert "no chat template" in found[4]["error"]
    before = out.read_text()
    assert align(models, prompts, settings, out) == lines_by_index(out)
    assert out.read_text() == before
    answers = read_answers(out)
    assert answers.seen() == "2 of 5 lines (3 of prompts that failed), 2 of 5 prompts"
    out.write_text(before + '{"index": 9')
    assert "1 cut off" in read_answers(out).seen()


def lines_by_index(path):
    return sorted(lines(path), key=lambda row: row["index"])


@pytest.mark.parametrize(
    ("prompt", "setting", "message"),
    [(" ", "on_empty", "prompt 2 is empty"), ("w2 " * 38, "on_long", "prompt 2 is too long")],
)
def test_what_is_asked_to_be_an_error_is_one(models, settings, prompt, setting, message):
    with pytest.raises(VGFError, match=message):
        align(models, ["w1", prompt], change(settings, **{setting: "error"}))


def test_prompts_are_truncated_on_the_left(models, settings):
    own = change(settings, on_long="truncate-left")
    text = " ".join(f"w{i % 40}" for i in range(60))
    found, exact = align(models, [text, " ".join(text.split()[-34:])], own)
    assert found["prompt"] == text
    assert found["given"].split() == text.split()[-34:]
    assert "given" not in exact
    assert found["prompt_tokens"] == exact["prompt_tokens"]


def test_conversations_lose_their_oldest_turns_first(settings):
    from chat_models import chat_models

    base, reward, tokenizer = chat_models("qwen", max_position_embeddings=90)
    models = pair(base, reward, tokenizer)
    own = change(settings, on_long="truncate-left", max_new_tokens=4, particles=2)
    said = "the film was good and "
    turns = [{"role": "system", "content": "be good"}]
    for i in range(4):
        turns += [{"role": "user", "content": said + str(i)}]
        turns += [{"role": "assistant", "content": "Yes!"}]
    (record,) = align(models, [turns[:-1]], own)
    kept = record["given"]
    assert kept[0] == turns[0]
    assert kept[1:] == turns[-1 - len(kept[1:]) : -1]
    assert kept[1]["role"] == "user"
    assert len(record["prompt_tokens"]) <= 86
    (record,) = align(models, [[turns[0], {"role": "user", "content": said * 20}]], own)
    left = record["given"][1]["content"]
    assert (said * 20).endswith(left)
    assert 70 < len(record["prompt_tokens"]) <= 86


def poisoned():
    """A reward model whose gradient at w9 is not finite, though its reward is."""
    model = reward_model()
    table = model.get_input_embeddings()
    plain = table.forward

    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(_, x):
            return x.clone()

        @staticmethod
        def backward(_, g):
            return g * float("nan")

    body = model.base_model
    forward = body.forward

    def wrong(*args, inputs_embeds, **kwargs):
        bad = plain(torch.tensor([12]))
        has = (inputs_embeds[:, :1] == bad).all(-1).any()
        u = Broken.apply(inputs_embeds) if bool(has) else inputs_embeds
        return forward(*args, inputs_embeds=u, **kwargs)

    body.forward = wrong
    return model


def test_a_gradient_that_is_not_finite_stops_that_prompt_alone(settings, tmp_path):
    models = pair(base_model(), poisoned(), make_tokenizer())
    out = tmp_path / "out.jsonl"
    own = change(settings, decoding_weight=None, step_size=None)  # calibrated without it
    found = align(models, ["w9 w1", "w2", "w3"], own, out)
    assert "prompt 1: the reward's gradient is not finite" in found[0]["error"]
    assert all("samples" in row for row in found[1:])
    assert "NaN" not in out.read_text()
    with pytest.raises(VGFError, match=r"prompt 1: .* \(2 prompts fail\)"):
        align(models, ["w9", "w9 w2"], settings)


def test_calibration_is_kept_for_models_and_settings(models, settings, capsys, monkeypatch):
    own = change(settings, decoding_weight=None, step_size=None)
    calls = []
    forward = models.language.model.forward
    monkeypatch.setattr(
        models.language.model, "forward", lambda *a, **k: calls.append(0) or forward(*a, **k)
    )
    first = align(models, PROMPTS, own)
    computed = len(calls)
    calls.clear()
    assert "calibrated before" not in capsys.readouterr().out
    second = align(models, ["w8", "w9"], change(own, seed=3))
    assert "calibrated before" in capsys.readouterr().out
    assert len(calls) < computed / 2
    numbers = {(r["decoding_weight"], r["step_size"]) for r in (*first, *second)}
    assert len(numbers) == 1
    align(models, PROMPTS, change(own, recalibrate=True))
    align(models, PROMPTS, change(own, moved_change=0.5))
    assert "calibrated before" not in capsys.readouterr().out


def test_calls_of_the_base_model_do_not_grow_with_the_budgets(made, settings):
    """One pass to sample and one to decode, whatever the number of budgets and particles."""
    tokens = []
    models = pair(made.sft, made.rm, made.tokenizer)

    def note(module, args, kwargs):
        tokens.append((kwargs.get("input_ids") if not args else args[0]).shape)

    hook = made.sft.gpt_neox.register_forward_pre_hook(note, with_kwargs=True)
    counts = {}
    try:
        for budgets, prompt in (((2,), "w1 w2 w3 w4"), ((0, 1, 2, 5), "w5 w6 w7 w8")):
            tokens.clear()
            align(models, [prompt], change(settings, steps=budgets, particles=4))
            counts[budgets] = len(tokens)
            read = sum(rows * length for rows, length in tokens if length > 1)
            assert read == 3  # the prompt but for its last token, once for all particles
    finally:
        hook.remove()
    assert set(counts.values()) == {2 * settings.max_new_tokens + 1}


def test_the_command_says_what_it_left_out(folders, tmp_path, capsys):
    prompts, out = tmp_path / "p.jsonl", tmp_path / "out.jsonl"
    prompts.write_text('{"prompt": "w1", "reference": "w5 w6"}\n{"prompt": ""}\n')
    words = ["align", "--sft", str(folders.sft), "--rm", str(folders.rm), "--prompts"]
    words += [str(prompts), "--out", str(out), "--particles", "2", "--steps", "0", "1"]
    words += ["--max-new-tokens", "4", "--step-size", "0.5", "--decoding-weight", "0.05"]
    assert vgf(words) == 0
    shown = capsys.readouterr().out
    assert f"1 prompts in {out}" in shown
    assert "1 prompts were left out, the first as: prompt 2 is empty" in shown
    mine = tmp_path / "mine.py"
    mine.write_text("def score(prompts, responses):\n    return [len(r) for r in responses]\n")
    judging = ["judge", str(out), "--judge", f"{mine}:score"]
    assert vgf([*judging, "--against", "reference"]) == 0
    shown = capsys.readouterr().out
    assert "1 of 2 lines (1 of prompts that failed), 1 of 2 prompts" in shown
    assert "base" in shown
    assert vgf([*judging, "--against", "reference", "--reference-field", "summary"]) == 2
    assert "has no text 'summary'" in capsys.readouterr().err


@pytest.mark.parametrize("content", [[5], [["w1"]], [None], 5, {}])
def test_a_turn_is_text_or_parts_of_it(content):
    with pytest.raises(VGFError, match="line 3: turns must be a list"):
        as_prompt({"prompt": [{"role": "user", "content": content}]}, "line 3")


@pytest.mark.parametrize("content", ["w1 \ud800", [{"role": "user", "content": "\udfff"}]])
def test_half_of_a_surrogate_pair_is_refused(content):
    with pytest.raises(VGFError, match="line 3 holds half of a surrogate pair"):
        as_prompt({"prompt": content}, "line 3")


def test_calibration_leaves_out_a_prompt_that_an_error_does_not_name(made, monkeypatch, tmp_path):
    from vgf.text import calibration

    tried = []

    def calibrate(models, prompts, settings):
        tried.append([index for index, _ in prompts])
        if 1 in tried[-1]:
            raise VGFError("the reward model gives [nan]")
        return dataclasses.replace(settings, decoding_weight=0.1, step_size=0.2)

    monkeypatch.setattr(calibration, "calibrate", calibrate)
    monkeypatch.setattr(calibration, "cache_folder", lambda: tmp_path)
    models, own = pair(made.sft, made.rm, made.tokenizer), AlignSettings(max_new_tokens=5)
    rows = [(i, models.query(as_prompt(f"w{i + 1}", "p"), "p", own)) for i in range(3)]
    found = calibration.kept_calibration(models, rows, own)
    assert (found.decoding_weight, tried[-1]) == (0.1, [0, 2])
    with pytest.raises(VGFError, match="nan"):
        calibration.kept_calibration(models, rows[1:2], change(own, recalibrate=True))
