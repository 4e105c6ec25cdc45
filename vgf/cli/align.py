"""`vgf align`: a language model's responses, moved along a reward model's gradient."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..support.errors import VGFError
from . import COMMANDS

if TYPE_CHECKING:
    from ..text.settings import AlignSettings

# What --help shows, one line each.
_SHOWN = {
    "particles": "responses sampled for each prompt, N",
    "steps": "budgets L to decode at, in one flow",
    "particle_step": "normalised, plain or adam",
    "step_size": "epsilon; default: calibrated",
    "kernel": "none, sequence or position",
    "temperature": "alpha; none drops the repulsion",
    "direction": "reward, or a control: random, negative",
    "decoding": "likelihood, or nearest (token)",
    "decoding_weight": "lambda; default: calibrated",
    "max_new_tokens": "of a response",
    "sampling_temperature": "of the base model's samples",
    "batch_tokens": "tokens through a model at once: bounds memory",
    "sft_device": "of the base model",
    "rm_device": "of the reward model",
    "bridge": "spans or selection, for another tokenizer",
    "rm_label": "of a classifier with several outputs",
    "as_chat": "a plain prompt is a user's turn",
    "system_prompt": "of conversations without one",
    "stop_strings": "texts that end a response",
    "on_long": "truncate-left, skip or error",
    "shard": "of the prompts, i/n; default: all",
    "pad_token": "if the tokenizer has none",
    "seed": "fixes every random number",
}
# The share of changed tokens to which a number is calibrated
_WANTED = {"decoding_weight": "--unmoved-change", "step_size": "--moved-change"}


def main(words: list[str]) -> int:
    from ..runs.flags import add_flags, given, in_flags
    from ..support.parser import Parser
    from ..support.settings_tree import override
    from ..support.toml import read_toml
    from ..text.settings import AlignSettings

    parser = Parser(
        prog="vgf align",
        usage="vgf align --sft MODEL --rm MODEL --prompts FILE --out FILE [flags]",
        description=COMMANDS["align"],
        epilog="Started again with the same flags, it continues where it stopped. A MODEL is a "
        "folder, a name, or a .gguf file (needs the package gguf).",
    )
    for flag, text in (("--sft", "base model, causal"), ("--rm", "reward model, a classifier")):
        parser.add_argument(flag, metavar="MODEL", required=True, help=text)
    parser.add_argument(
        "--prompts",
        metavar="FILE",
        type=Path,
        required=True,
        help='JSONL, a line {"prompt": "..."} or {"messages": [...]} for each',
    )
    parser.add_argument(
        "--out", metavar="FILE", type=Path, required=True, help="JSONL, a line for each prompt"
    )
    start = AlignSettings()
    flags = add_flags(parser, ("",), shown=_SHOWN, config=start)
    args = parser.parse_args(words)
    file = read_toml(args.config) if args.config is not None else {}
    with in_flags(flags):
        settings = override(override(start, file, str(args.config)), given(args, start), "flags")
    if args.out.exists() and args.prompts.exists() and args.out.samefile(args.prompts):
        raise VGFError(f"{args.out} is the file of prompts; choose another --out")
    return _align(args.sft, args.rm, args.prompts, args.out, settings)


def _align(sft: str, rm: str, prompts: Path, out: Path, settings: AlignSettings) -> int:
    from ..support.files import check_writable
    from ..text import align, load_models, read_prompts
    from ..text.alignment import ERROR
    from ..text.calibration import at_an_end

    prompts_read = read_prompts(prompts)
    check_writable(out.parent)
    models = load_models(sft, rm, settings)
    if models.bridge is not None:
        print(f"the reward model has another tokenizer: --bridge {models.bridge}")
    records = align(models, prompts_read, settings, out)
    if not records:
        print(f"--shard {settings.shard} holds none of the {len(prompts_read)} prompts")
        return 0
    whole = [record for record in records if ERROR not in record]
    print(f"{len(whole)} prompts in {out}")
    if len(whole) < len(records):
        first = next(record[ERROR] for record in records if ERROR in record)
        print(f"{len(records) - len(whole)} prompts were left out, the first as: {first}")
    for name in settings.calibrates if models.bridge != "selection" else ():
        flag, value = f"--{name.replace('_', '-')}", whole[0][name]
        print(f"{flag} calibrated to {value:.3g}")
        if at_an_end(value):
            print(f"  the end of the range: {_WANTED[name]} is not reached; give another share")
    print(f"vgf judge {out} --judge ... says who wins")
    return 0
