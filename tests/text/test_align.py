"""Aligning whole prompts: the records, the file, going on, calibration, and what is refused."""

import pytest
from needs import need

need("torch", "transformers")

import dataclasses
import json

from tiny_models import PROMPTS, WORDS, base_model, make_tokenizer, reward_model

from vgf.support.errors import VGFError
from vgf.text import AlignSettings, align, calibrate, flow, pair, read_prompts
from vgf.text.calibration import HIGH, LOW, at_an_end, largest, mean_change

change = dataclasses.replace
OWN = ("seconds", "prompts")  # of one call


def alike(records, others):
    """Whether records are the same but for times, and numbers but for rounding."""

    def numbers(value):
        if isinstance(value, dict):
            return [x for key, item in value.items() if key not in OWN for x in numbers(item)]
        if isinstance(value, list):
            return [x for item in value for x in numbers(item)]
        return [value] if isinstance(value, float) else []

    def rest(value):
        if isinstance(value, dict):
            return {key: rest(item) for key, item in value.items() if key not in OWN}
        if isinstance(value, list):
            return [rest(item) for item in value]
        return float if isinstance(value, float) else value

    records, others = list(records), list(others)
    assert rest(records) == rest(others)
    assert numbers(records) == pytest.approx(numbers(others), rel=1e-6, abs=1e-9)
    return True


@pytest.fixture
def records(models, settings):
    return align(models, PROMPTS, settings)


def test_a_record_says_what_the_models_say(models, made, records, settings):
    for i, record in enumerate(records):
        assert (record["index"], record["prompt"]) == (i, PROMPTS[i])
        prompt = models.encode(PROMPTS[i], "", 0)
        groups = [record["samples"], *(budget["candidates"] for budget in record["budgets"])]
        assert [budget["steps"] for budget in record["budgets"]] == [0, 1, 3]
        for group in groups:
            assert len(group) == settings.particles
            for row in group:
                (reward,) = models.reward.rewards([prompt + row["tokens"]]).tolist()
                (log_p,) = models.language.log_likelihoods([prompt], [row["tokens"]])
                assert row["reward"] == pytest.approx(reward)
                assert row["log_likelihood"] == pytest.approx(log_p, rel=1e-5)
                text = made.tokenizer.decode(row["tokens"], skip_special_tokens=True)
                assert row["response"] == " " + text
        assert set(record["seconds"]) == {"sample", "flow", "decode", "score"}
        assert json.loads(json.dumps(record)) == record


def test_the_best_is_chosen_at_every_budget_and_among_the_samples(records):
    for record in records:
        for part in (record["best_of_n"], *record["budgets"]):
            rows = part.get("candidates", record["samples"])
            values = [row["reward"] for row in rows]
            assert part["chosen"] == values.index(max(values))
            assert part["reward"] == max(values)
            assert part["response"] == rows[part["chosen"]]["response"]
        last = record["budgets"][-1]
        assert (record["response"], record["reward"]) == (last["response"], last["reward"])


def test_without_steps_nothing_moves_and_with_them_tokens_change(records):
    for record in records:
        start, *moved = record["budgets"]
        assert [row["moved"] for row in start["candidates"]] == [0.0] * 3
        for budget in moved:
            assert min(row["moved"] for row in budget["candidates"]) > 0
            for row, before in zip(budget["candidates"], record["samples"], strict=True):
                pairs = list(zip(row["tokens"], before["tokens"], strict=True))
                assert row["changed"] == pytest.approx(sum(x != y for x, y in pairs) / len(pairs))
    last = [row["changed"] for record in records for row in record["budgets"][-1]["candidates"]]
    assert max(last) > 0


def test_the_flow_raises_the_reward_and_its_controls_do_not(models, settings):
    wanted = change(settings, particles=16, step_size=0.3, steps=(0, 5), max_new_tokens=10)
    wanted = change(wanted, decoding_weight=0.0, decoding_top=len(WORDS))

    def gain(direction):
        records = align(models, PROMPTS, change(wanted, direction=direction))
        return [
            after["reward"] - before["reward"]
            for record in records
            for before, after in zip(*(b["candidates"] for b in record["budgets"]), strict=True)
        ]

    along, astray, against = (sum(gain(of)) for of in ("reward", "random", "negative"))
    assert along > 0 > against
    assert along > 2 * abs(astray)


def test_portions_and_places_do_not_matter(models, settings, records):
    small = align(models, PROMPTS, change(settings, batch_tokens=1, rm_device="cpu"))
    assert alike(small, records)


@pytest.mark.parametrize(("bound", "least"), [(22, 1), (10**6, 9)])
def test_no_more_tokens_go_through_a_model_at_once_than_are_allowed(made, settings, bound, least):
    sizes = {"sft": [], "rm": []}

    def note(name):
        def hook(module, args, kwargs):
            given = [*args, kwargs.get("input_ids"), kwargs.get("inputs_embeds")]
            sizes[name].append(next(x.shape[:2] for x in given if x is not None))

        return hook

    hooks = [
        getattr(made, name).gpt_neox.register_forward_pre_hook(note(name), with_kwargs=True)
        for name in sizes
    ]
    try:
        align(
            pair(made.sft, made.rm, made.tokenizer), PROMPTS, change(settings, batch_tokens=bound)
        )
    finally:
        for hook in hooks:
            hook.remove()
    for found in sizes.values():
        assert all(rows == 1 or rows * length <= bound for rows, length in found)
        assert max(rows for rows, _ in found) >= least


def test_a_file_goes_on_where_it_was_cut_off(models, settings, records, tmp_path):
    out = tmp_path / "deep" / "out.jsonl"
    assert alike(align(models, PROMPTS[:1], settings, out), records[:1])
    align(models, PROMPTS, settings, out)
    whole = out.read_text().splitlines(keepends=True)
    assert alike(map(json.loads, whole), records)
    out.write_text(whole[0] + whole[1][: len(whole[1]) // 2])
    again = align(models, PROMPTS, settings, out)
    assert alike(again, records)
    lines = out.read_text().splitlines(keepends=True)
    assert lines[0] == whole[0]
    assert alike(map(json.loads, lines), records)
    unchanged = out.read_text()
    assert align(models, PROMPTS, settings, out) == [json.loads(line) for line in lines]
    assert out.read_text() == unchanged


def test_a_line_cut_off_at_its_start_and_one_of_several_bytes(models, settings, tmp_path):
    out = tmp_path / "out.jsonl"
    out.write_bytes('{"prompt": "ä'.encode()[:-1])
    assert len(align(models, PROMPTS[:1], settings, out)) == 1
    assert len(out.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "line 1 was made with seed 0, not 1"),
        ({"steps": (0, 1)}, r"steps \[0, 1, 3\], not \[0, 1\]"),
        ({"temperature": 0.5, "kernel": "sequence"}, "kernel 'none', not 'sequence'"),
    ],
)
def test_other_settings_are_refused(models, settings, tmp_path, changes, message):
    out = tmp_path / "out.jsonl"
    align(models, PROMPTS[:1], settings, out)
    before = out.read_text()
    with pytest.raises(VGFError, match=message):
        align(models, PROMPTS, change(settings, **changes), out)
    assert out.read_text() == before


def test_other_models_prompts_and_files_are_refused(models, made, settings, tmp_path):
    out = tmp_path / "out.jsonl"
    align(models, PROMPTS[:1], settings, out)
    other = pair(made.sft, reward_model(7), made.tokenizer)
    with pytest.raises(VGFError, match="other models; choose another --out"):
        align(other, PROMPTS, settings, out)
    with pytest.raises(VGFError, match="line 1 is for another prompt"):
        align(models, PROMPTS[::-1], settings, out)
    out.write_text('{"prompt": "w1"}\n')
    with pytest.raises(VGFError, match="was not written by vgf align"):
        align(models, PROMPTS, settings, out)
    out.write_text("{]\n")
    with pytest.raises(VGFError, match="line 1 is damaged"):
        align(models, PROMPTS, settings, out)


def test_calibration_meets_its_shares(models, settings):
    wanted = change(settings, decoding_weight=None, step_size=None, unmoved_change=0.2)
    prompts = [(i, models.encode(prompt, "", 6)) for i, prompt in enumerate(PROMPTS)]
    found = calibrate(models, prompts, wanted)
    assert found.calibrates == ()
    samples = flow.sample(models, prompts, found)
    shares = {}
    for factor in (1.0, 1.05):
        weight = change(found, decoding_weight=found.decoding_weight * factor)
        start = [flow.embed(models, of) for of in samples]
        shares["weight", factor] = mean_change(samples, flow.decode(models, samples, start, weight))
        size = change(found, step_size=found.step_size * factor)
        moved = flow.transport(models, samples, size)[0][3]
        shares["size", factor] = mean_change(samples, flow.decode(models, samples, moved, size))
    assert shares["weight", 1.0] <= 0.2 < shares["weight", 1.05]
    assert 0.2 < shares["size", 1.0] <= 0.3
    assert calibrate(models, prompts, found) is found


def test_halving_finds_the_edge_and_stops_at_the_ends():
    def find(share, target):
        return largest(lambda trials: [share(x) for x in trials], target)

    assert find(lambda x: x / 10, 0.05) == pytest.approx(0.5, rel=0.02)
    assert find(lambda x: 1.0, 0.5) == pytest.approx(LOW)
    assert find(lambda x: 0.0, 0.5) == pytest.approx(HIGH, rel=0.02)
    assert at_an_end(find(lambda x: 1.0, 0.5))
    assert at_an_end(find(lambda x: 0.0, 0.5))
    assert not any(at_an_end(find(lambda x: x, y)) for y in (0.0011, 0.2, 9.0))


def test_a_calibrated_file_goes_on_with_the_same_numbers(models, settings, tmp_path):
    wanted = change(settings, decoding_weight=None, step_size=None, calibration_prompts=1)
    out = tmp_path / "out.jsonl"
    whole = align(models, PROMPTS, wanted, out)
    out.write_text(out.read_text().splitlines(keepends=True)[0])
    assert alike(align(models, PROMPTS, wanted, out), whole)
    assert len({(record["decoding_weight"], record["step_size"]) for record in whole}) == 1
    assert whole[0]["settings"]["step_size"] == "none"


def test_nearest_decoding_needs_no_weight(models, settings):
    nearest = change(settings, decoding="nearest", decoding_weight=None)
    assert nearest.calibrates == ()
    (record,) = align(models, PROMPTS[:1], nearest)
    start = record["budgets"][0]["candidates"]
    assert [row["tokens"] for row in start] == [row["tokens"] for row in record["samples"]]


def test_prompts_that_are_empty_or_too_long(models, settings):
    with pytest.raises(VGFError, match="prompt 2 is empty"):
        align(models, ["w1", " "], change(settings, on_empty="error"))
    with pytest.raises(VGFError, match=r"prompt 1 is too long: 35 tokens and 6 new .* 40"):
        align(models, ["w1 " * 35], settings)
    short = pair(base_model(), reward_model(max_position_embeddings=8), make_tokenizer())
    with pytest.raises(VGFError, match="8 that the --rm model takes"):
        align(short, ["w1 w2 w3"], settings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no prompt"),
        ('{"prompt": "a"}\n{"prompt"', "line 2 is not JSON"),
        ('{"text": "a"}\n', 'line 1 has no text "prompt"'),
        ('["a"]\n', 'line 1 has no text "prompt"'),
        ('{"prompt": 3}\n', 'line 1 has no text "prompt"'),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_files_of_prompts_that_are_refused(tmp_path, text, message):
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(VGFError, match=message):
        read_prompts(path)
    with pytest.raises(VGFError, match=r"absent\.jsonl: cannot be read"):
        read_prompts(tmp_path / "absent.jsonl")


def test_prompts_are_read_as_they_are(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "NaN", "id": 1}\n\n{"prompt": "a\\u2028\u2028b"}')
    assert [prompt.content for prompt in read_prompts(path)] == ["NaN", "a\u2028\u2028b"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": ()}, "steps is empty"),
        ({"steps": (1, 1)}, "twice"),
        ({"steps": (-1,)}, "steps is -1"),
        ({"particles": 0}, "particles is 0"),
        ({"min_new_tokens": 0}, "min_new_tokens is 0"),
        ({"min_new_tokens": 9, "max_new_tokens": 8}, "more than max_new_tokens"),
        ({"particle_step": "normalized"}, "did you mean 'normalised'"),
        ({"kernel": "rbf"}, "choose one of sequence, position"),
        ({"direction": "up"}, "direction is 'up'"),
        ({"decoding": "nearest", "decoding_weight": 0.1}, "belongs to decoding 'likelihood'"),
        ({"step_size": 0.0}, "above 0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"decoding_weight": -1.0}, "decoding_weight is -1"),
        ({"moved_change": 1.0}, "between 0 and 1"),
        ({"sft_dtype": "int8"}, "sft_dtype is 'int8'"),
        ({"rm_device": "tpu"}, "'tpu' is unknown"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_settings_that_are_refused(changes, message):
    with pytest.raises((ValueError, VGFError), match=message):
        AlignSettings(**changes)
