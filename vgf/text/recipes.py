"""The paper's protocol for language models as one recipe: TL;DR summaries and Anthropic's HH.

    vgf recipe tldr --model EleutherAI/pythia-2.8b --out runs/tldr --judge openai:MODEL
    vgf recipe hh --data FOLDER --model FOLDER --out runs/hh --judge mine.py:score

Supervised fine-tuning, a Bradley-Terry reward model and DPO on the preferences; then, on the test
prompts, one sample of the base model and of DPO, the best of N, and VGF at every budget, judged
against the references. Every stage is kept in the folder: a stopped job goes on.

Data are rows as they are published. TL;DR (Stiennon et al., 2020): "prompt" (or "subreddit",
"title", "post", also within "info"), with "chosen" and "rejected", with "summaries" and "choice",
or with a summary ("completion", "label" or "summary"). HH (Bai et al., 2022): "chosen" and
"rejected", whole conversations that differ in the last answer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..support.errors import VGFError
from ..support.extras import need
from ..support.files import make_folder, write_atomically
from ..support.progress import say_line
from .judging import Answers, Item, Judge, Verdict, judge, read_answers
from .prompts import REFERENCE, Turns, read_rows
from .settings import AlignSettings

Row = Mapping[str, Any]
HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
SUMMARIES = ("completion", "label", "summary", "reference")
PARTS = ("train", "test")


@dataclass(frozen=True)
class Recipe:
    """A task of the protocol.

    Attributes:
        name: "tldr" or "hh".
        example: a row as {"prompt", "chosen", "rejected", "reference"}, those it has.
        hub: the published data sets, for preferences and for supervised training.
        prompt_tokens: the most of a prompt; more are truncated.
        new_tokens: of a response.
        question: of the judge, see :class:`vgf.text.endpoint.Endpoint`.
    """

    name: str
    example: Callable[[Row], dict[str, str]]
    hub: tuple[str, str]
    prompt_tokens: int
    new_tokens: int
    question: str


@dataclass(frozen=True)
class Plan:
    """How much of everything.

    Args:
        rows: of each part of the data; none is all.
        prompts: of the test.
        epochs: of the supervised training and of the rewards'.
        steps: of each training at most; none is no limit.
        batch: sequences of a training step.
        learning_rate: of the supervised training; rewards and DPO have their papers'.
        beta: DPO's.
        seed: of the trainings and the samples.
    """

    rows: int | None = None
    prompts: int = 256
    epochs: int = 1
    steps: int | None = None
    batch: int = 8
    learning_rate: float = 1e-5
    beta: float = 0.1
    seed: int = 0


# --- prompts ------------------------------------------------------------------------------------


def tldr_prompt(subreddit: str, title: str, post: str) -> str:
    """A post as the summaries' models read it."""
    return f"SUBREDDIT: r/{subreddit}\n\nTITLE: {title}\n\nPOST: {post}\n\nTL;DR:"


def tldr_example(row: Row) -> dict[str, str]:
    """One row of the summaries: a prompt, and what it has of a pair and a reference.

    Raises:
        VGFError: it has no post.
    """
    info = row.get("info", row)
    prompt = row.get("prompt", row.get("query"))
    if prompt is None:
        try:
            prompt = tldr_prompt(info.get("subreddit") or "", info.get("title") or "", info["post"])
        except (KeyError, AttributeError) as error:
            raise VGFError('a row of TL;DR needs "prompt" or "post"') from error
    found = {"prompt": str(prompt).rstrip()}
    if "summaries" in row:
        texts = [str(one["text"]) for one in row["summaries"]]
        best = int(row["choice"])
        found |= {"chosen": texts[best], "rejected": texts[1 - best]}
    for name in ("chosen", "rejected"):
        if isinstance(row.get(name), str):
            found[name] = row[name]
    reference = next((row[name] for name in SUMMARIES if isinstance(row.get(name), str)), None)
    if reference is not None:
        found[REFERENCE] = reference
    # a summary follows "TL;DR:" after a space
    return {k: v if k == "prompt" else " " + v.strip() for k, v in found.items()}


def hh_split(conversation: str) -> tuple[Turns, str]:
    """A conversation as turns, and the last answer.

    Raises:
        VGFError: it does not alternate between "Human:" and "Assistant:", or ends otherwise.
    """
    before, found, answer = conversation.rpartition(ASSISTANT)
    if not found or HUMAN in answer:
        raise VGFError("a conversation must end with Assistant's turn")
    turns: Turns = []
    rest = before
    while rest:
        head = next((one for one in (HUMAN, ASSISTANT) if rest.startswith(one)), None)
        if head is None:
            raise VGFError(f"a conversation must begin with 'Human:'; it begins {rest[:40]!r}")
        rest = rest[len(head) :]
        places = [at for at in (rest.find(HUMAN), rest.find(ASSISTANT)) if at >= 0]
        stop = min(places, default=len(rest))
        role = "user" if head == HUMAN else "assistant"
        turns.append({"role": role, "content": rest[:stop].strip()})
        rest = rest[stop:]
    return turns, answer.strip()


def hh_prompt(turns: Turns) -> str:
    """Turns as one text that the assistant goes on with."""
    named = {"user": HUMAN, "assistant": ASSISTANT}
    return "".join(f"{named[turn['role']]} {turn['content']}" for turn in turns) + ASSISTANT


def hh_example(row: Row) -> dict[str, str]:
    """One row of HH: the prompt that both conversations share, and their last answers.

    Raises:
        VGFError: they do not share it, or are no conversations.
    """
    try:
        (turns, chosen), (other, rejected) = (
            hh_split(row[name]) for name in ("chosen", "rejected")
        )
    except (KeyError, AttributeError) as error:
        raise VGFError('a row of HH needs the texts "chosen" and "rejected"') from error
    if turns != other:
        raise VGFError("the two conversations differ before the last answer")
    prompt = hh_prompt(turns)
    return {
        "prompt": prompt,
        "chosen": f" {chosen}",
        "rejected": f" {rejected}",
        REFERENCE: f" {chosen}",
    }


def shorten(prompt: str, tokenizer: Any, most: int, name: str) -> str:
    """A prompt of at most so many tokens.

    TL;DR loses the end of its post, at the end of a paragraph or sentence where there is one; HH
    its oldest exchanges, then the beginning of its text.
    """

    def fits(text: str) -> bool:
        return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) <= most

    if fits(prompt):
        return prompt
    if name == "hh":
        while (at := prompt.find(HUMAN, 1)) > 0:
            prompt = prompt[at:]
            if fits(prompt):
                return prompt
        start, end = HUMAN + " ", ASSISTANT
        body = prompt.removeprefix(HUMAN).removesuffix(ASSISTANT).strip()
        size = _most(lambda n: fits(start + body[len(body) - n :] + end), len(body))
        return start + body[len(body) - size :] + end
    end = "\n\nTL;DR:"
    body = prompt.removesuffix("TL;DR:").rstrip()
    kept = body[: _most(lambda n: fits(body[:n] + end), len(body))]
    for mark in ("\n", ". ", " "):
        at = kept.rfind(mark)
        if at > len(kept) // 2:
            kept = kept[: at + len(mark)]
            break
    return kept.rstrip() + end


def _most(fits: Callable[[int], bool], high: int) -> int:
    """The largest number that fits, if smaller ones do."""
    low = 0
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


RECIPES = {
    "tldr": Recipe(
        "tldr", tldr_example, ("trl-lib/tldr-preference", "trl-lib/tldr"), 512, 53, "tldr"
    ),
    "hh": Recipe("hh", hh_example, ("Anthropic/hh-rlhf", "Anthropic/hh-rlhf"), 512, 128, "hh"),
}


# --- data ---------------------------------------------------------------------------------------


def read_data(recipe: Recipe, folder: Path | None, rows: int | None) -> dict[str, list[Any]]:
    """Preference pairs to train on, examples for supervised training, and test prompts.

    Args:
        recipe: of which task.
        folder: has train.jsonl and test.jsonl, and may have sft.jsonl; None is the published data
            sets, by the package `datasets`.
        rows: at most, of each.

    Returns:
        "train", "sft" and "test": examples. Rows that are no example are left out, and counted.

    Raises:
        VGFError: no data, or none that can be used.
    """
    found: dict[str, list[Any]] = {}
    for part in (*PARTS, "sft"):
        skipped, kept = 0, list[dict[str, str]]()
        for row in _rows(recipe, folder, part):
            if rows is not None and len(kept) >= rows:
                break
            try:
                kept.append(recipe.example(row))
            except VGFError:
                skipped += 1
        if skipped:
            say_line(f"{part}: {skipped} rows are no example of {recipe.name} and were left out")
        found[part] = kept
    found["train"] = [row for row in found["train"] if {"chosen", "rejected"} <= row.keys()]
    if not found["sft"]:
        found["sft"] = [{**row, REFERENCE: row["chosen"]} for row in found["train"]]
    found["sft"] = [row for row in found["sft"] if REFERENCE in row]
    for row in found["test"]:
        row.setdefault(REFERENCE, row.get("chosen", ""))
    for part, kept in found.items():
        if not kept:
            raise VGFError(f"{folder or recipe.hub[0]}: no {part} rows of {recipe.name}")
    return found


def _rows(recipe: Recipe, folder: Path | None, part: str) -> Iterable[Row]:
    if folder is not None:
        place = folder / f"{part}.jsonl"
        if part == "sft" and not place.exists():
            return []
        return [row for _, row in read_rows(place)]
    datasets = need("datasets", "recipes")
    preferences, sft = recipe.hub
    if part == "sft" and sft == preferences:
        return []
    name, split = (sft, "train") if part == "sft" else (preferences, part)
    if part == "test" and sft != preferences:
        name = sft  # it has the references
    try:
        found: Iterable[Row] = datasets.load_dataset(name, split=split)
    except Exception as error:
        message = " ".join(str(error).split())[:300]
        raise VGFError(f"data set {name} cannot be loaded: {message}; give --data") from error
    return found


# --- the protocol -------------------------------------------------------------------------------


def run_recipe(
    recipe: Recipe,
    model: str,
    out: Path,
    judges: Mapping[str, Judge],
    data: Path | None = None,
    plan: Plan | None = None,
    settings: AlignSettings | None = None,
) -> list[Verdict]:
    """Train what is not trained yet, let every method answer, and judge against the references.

    Args:
        recipe: of :data:`RECIPES`.
        model: the pretrained model, a folder or a name.
        out: a folder for models, data and responses.
        judges: by name.
        data: see :func:`read_data`.
        plan: how much; None is the defaults.
        settings: of VGF; the length of responses and the seed are the recipe's and the plan's.

    Raises:
        VGFError: as :func:`read_data`, :func:`vgf.text.load_models` and :func:`vgf.text.align`.
    """
    from .alignment import align
    from .models import load_models, load_tokenizer

    plan = Plan() if plan is None else plan
    settings = AlignSettings() if settings is None else settings
    make_folder(out)
    examples = read_data(recipe, data, plan.rows)
    tokenizer = load_tokenizer(model, settings.pad_token, padded=False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    for part in examples.values():
        for row in part:
            row["prompt"] = shorten(row["prompt"], tokenizer, recipe.prompt_tokens, recipe.name)
    train_all(out, model, tokenizer, examples, recipe, plan)
    own = replace(settings, max_new_tokens=recipe.new_tokens, seed=plan.seed)
    tests = [{"prompt": x["prompt"], REFERENCE: x[REFERENCE]} for x in examples["test"]]
    prompts = tests[: plan.prompts]
    say_line("VGF and best-of-N")
    models = load_models(str(out / "sft"), str(out / "rm"), own)
    align(models, prompts, own, out / "aligned.jsonl")
    say_line("DPO")
    one = replace(own, particles=1, steps=(0,), decoding="nearest", decoding_weight=None)
    tuned = load_models(str(out / "dpo"), str(out / "rm"), one)
    records = align(tuned, prompts, one, out / "dpo.jsonl")
    answers = _with_dpo(read_answers(out / "aligned.jsonl"), records)
    return judge(answers, judges, REFERENCE)


def _with_dpo(answers: Answers, records: Sequence[Mapping[str, Any]]) -> Answers:
    said = {row["index"]: row["samples"][0] for row in records if "samples" in row}
    base = answers.items["base"]
    absent = [index for _, index in answers.keys if index not in said]
    if absent:
        raise VGFError(f"DPO has no response to prompt {absent[0] + 1}")
    items = [
        Item(own.content, said[index]["response"], said[index]["tokens"], own.prompt_tokens)
        for own, (_, index) in zip(base, answers.keys, strict=True)
    ]
    return replace(answers, items={**answers.items, "DPO": items})


def train_all(
    out: Path, model: str, tokenizer: Any, examples: Mapping[str, Any], recipe: Recipe, plan: Plan
) -> None:
    """The supervised model, the reward model and DPO, in folders; those there are kept."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from .models import load_model

    def kept(name: str, make: Callable[[], Any]) -> None:
        place, writing = out / name, out / f".{name}"
        if place.exists():
            return
        say_line(f"training {name}")
        made = make()
        made.save_pretrained(writing)
        tokenizer.save_pretrained(writing)
        os.replace(writing, place)

    def trained(kind: str, models: list[Any], rows: list[Any], **options: Any) -> Any:
        from .training import fit

        most = {} if plan.steps is None else {"max_steps": plan.steps}
        return fit(
            kind,
            models,
            rows,
            tokenizer,
            plan.seed,
            per_device_train_batch_size=plan.batch,
            max_length=recipe.prompt_tokens + recipe.new_tokens,
            **most,
            **options,
        )

    def language(place: str) -> Any:
        return load_model(AutoModelForCausalLM, place, dtype="float32").requires_grad_(True)

    def reward(place: str) -> Any:
        loaded = load_model(
            AutoModelForSequenceClassification,
            place,
            dtype="float32",
            may_lack=("score", "classifier"),
            num_labels=1,
        )
        loaded.config.pad_token_id = tokenizer.pad_token_id
        return loaded.requires_grad_(True)

    write_atomically(out / "recipe.json", json.dumps(vars(plan) | {"recipe": recipe.name}) + "\n")
    sft_rows = [{"prompt": x["prompt"], "completion": x[REFERENCE]} for x in examples["sft"]]
    kept(
        "sft",
        lambda: trained(
            "SFT",
            [language(model)],
            sft_rows,
            num_train_epochs=plan.epochs,
            learning_rate=plan.learning_rate,
        ),
    )
    names = ("prompt", "chosen", "rejected")
    pairs = [{name: x[name] for name in names} for x in examples["train"]]
    sft = str(out / "sft")
    kept(
        "rm",
        lambda: trained(
            "Reward", [reward(sft)], pairs, num_train_epochs=plan.epochs, learning_rate=1e-5
        ),
    )
    kept(
        "dpo",
        lambda: trained(
            "DPO",
            [language(sft), language(sft)],
            pairs,
            num_train_epochs=1,
            learning_rate=5e-7,
            beta=plan.beta,
        ),
    )
