"""The paper's protocol: prompts as published, and the whole of it on stand-in data."""

import pytest
from needs import need

need("torch", "transformers")

import json
import random

from vgf.cli import main as vgf
from vgf.support.errors import VGFError
from vgf.text.recipes import (
    RECIPES,
    hh_example,
    hh_prompt,
    hh_split,
    read_data,
    shorten,
    tldr_example,
)

TEXT = "my friend told me that the film was good but i think it is bad and long"


class Words:
    """A tokenizer whose tokens are words."""

    def __call__(self, text, **_):
        return {"input_ids": text.split()}


def test_summaries_as_they_are_published():
    info = {"subreddit": "films", "title": "A film", "post": "I saw it.\nIt was good."}
    wanted = "SUBREDDIT: r/films\n\nTITLE: A film\n\nPOST: I saw it.\nIt was good.\n\nTL;DR:"
    pair = tldr_example(
        {"info": info, "summaries": [{"text": " saw it"}, {"text": "good"}], "choice": 1}
    )
    assert pair == {"prompt": wanted, "chosen": " good", "rejected": " saw it"}
    assert tldr_example({**info, "summary": "good"}) == {"prompt": wanted, "reference": " good"}
    row = {"prompt": wanted, "chosen": " good", "rejected": "bad", "label": "fine"}
    assert tldr_example(row) == {
        "prompt": wanted,
        "chosen": " good",
        "rejected": " bad",
        "reference": " fine",
    }
    with pytest.raises(VGFError, match='needs "prompt" or "post"'):
        tldr_example({"title": "x"})


def test_conversations_are_split_at_every_turn():
    text = "\n\nHuman: Is it\n\ngood?\n\nAssistant: Yes.\n\nHuman: Why?\n\nAssistant:"
    turns, answer = hh_split(text + " Because.")
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
    assert turns[0]["content"] == "Is it\n\ngood?"
    assert answer == "Because."
    assert hh_prompt(turns) == text
    row = {"chosen": text + " Because.", "rejected": text + " No."}
    found = hh_example(row)
    assert (found["prompt"], found["chosen"], found["rejected"]) == (text, " Because.", " No.")
    assert found["reference"] == " Because."
    for wrong, message in (
        ({"chosen": text + " x", "rejected": "\n\nHuman: Other\n\nAssistant: x"}, "differ before"),
        ({"chosen": "Hello", "rejected": "x"}, "must end with Assistant's turn"),
        ({"chosen": "Hi\n\nAssistant: x", "rejected": "Hi\n\nAssistant: x"}, "must begin with"),
        ({"chosen": text}, "needs the texts"),
    ):
        with pytest.raises(VGFError, match=message):
            hh_example(wrong)


def test_prompts_are_shortened_where_their_kind_is():
    post = "\n".join(f"one two three {i}." for i in range(50))
    long = f"SUBREDDIT: r/a\n\nTITLE: b\n\nPOST: {post}\n\nTL;DR:"
    kept = shorten(long, Words(), 60, "tldr")
    assert len(kept.split()) <= 60
    assert kept.endswith(".\n\nTL;DR:")
    assert long.startswith(kept.removesuffix("\n\nTL;DR:"))
    turns = [f"\n\nHuman: say it {i}\n\nAssistant: it {i}" for i in range(5)]
    text = "".join(turns) + "\n\nHuman: last one\n\nAssistant:"
    kept = shorten(text, Words(), 16, "hh")
    assert kept == turns[-1] + "\n\nHuman: last one\n\nAssistant:"
    kept = shorten("\n\nHuman: " + "a b c d " * 9 + "end\n\nAssistant:", Words(), 8, "hh")
    assert len(kept.split()) <= 8
    assert kept.startswith("\n\nHuman: ")
    assert kept.endswith("end\n\nAssistant:")
    assert shorten("short TL;DR:", Words(), 9, "tldr") == "short TL;DR:"


def stand_in(folder, kind, rows=24):
    """Rows of the published shape: the better answer has "good" in it."""
    folder.mkdir()
    draw = random.Random(0)

    def words(n):
        return " ".join(draw.choice(TEXT.split()) for _ in range(n))

    for part in ("train", "test"):
        with open(folder / f"{part}.jsonl", "w") as file:
            for _ in range(rows):
                better, worse = words(3) + " good", words(3) + " bad"
                if kind == "tldr":
                    info = {"subreddit": "films", "title": words(3), "post": words(8)}
                    summaries = [{"text": worse}, {"text": better}]
                    row = {"info": info, "summaries": summaries, "choice": 1}
                    if part == "test":
                        row = {**info, "summary": better}
                else:
                    talk = f"\n\nHuman: {words(4)}\n\nAssistant: {words(2)}\n\nHuman: {words(3)}"
                    talk += "\n\nAssistant: "
                    row = {"chosen": talk + better, "rejected": talk + worse}
                file.write(json.dumps(row) + "\n")
            file.write('{"odd": 1}\n')
    return folder


@pytest.mark.parametrize("kind", ["tldr", "hh"])
def test_data_are_read_and_odd_rows_counted(tmp_path, capsys, kind):
    found = read_data(RECIPES[kind], stand_in(tmp_path / "data", kind), 10)
    assert {part: len(rows) for part, rows in found.items()} == {"train": 10, "sft": 10, "test": 10}
    assert all(row["reference"].startswith(" ") for row in found["test"])
    found = read_data(RECIPES[kind], tmp_path / "data", None)
    assert len(found["train"]) == 24
    assert f"train: 1 rows are no example of {kind}" in capsys.readouterr().out
    with pytest.raises(VGFError, match="cannot be read"):
        read_data(RECIPES[kind], tmp_path, None)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tldr", "hh"])
def test_the_whole_protocol_on_stand_in_data(tmp_path, kind, capsys):
    pytest.importorskip("trl")
    from chat_models import chat_tokenizer
    from tiny_models import make_config
    from transformers import GPTNeoXForCausalLM

    data = stand_in(tmp_path / "data", kind)
    tokenizer = chat_tokenizer("llama", 400)
    tokenizer.chat_template = None
    config = make_config(vocab_size=len(tokenizer), max_position_embeddings=768)
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    config.pad_token_id = tokenizer.pad_token_id
    GPTNeoXForCausalLM(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    judge = tmp_path / "mine.py"
    judge.write_text("def score(prompts, responses):\n    return [len(r) for r in responses]\n")
    words = ["recipe", kind, "--data", str(data), "--model", str(tmp_path / "model")]
    words += ["--out", str(tmp_path / "out"), "--judge", f"{judge}:score", "--prompts", "3"]
    words += ["--train-steps", "2", "--train-batch", "4", "--particles", "2", "--steps", "0", "1"]
    words += ["--calibration-prompts", "1"]
    assert vgf(words) == 0
    shown = capsys.readouterr().out
    for method in ("base", "best_of_n", "L=0", "L=1", "DPO"):
        assert f" {method} " in shown
    rows = json.loads((tmp_path / "out" / "verdicts.json").read_text())
    assert [row["method"] for row in rows if "wins" in row] == [
        *("base", "best_of_n", "L=0", "L=1", "DPO")
    ]
    assert all(row["against"] == "reference" for row in rows if "wins" in row)
    before = (tmp_path / "out" / "aligned.jsonl").read_text()
    assert vgf(words) == 0
    assert "training" not in capsys.readouterr().out
    assert (tmp_path / "out" / "aligned.jsonl").read_text() == before
