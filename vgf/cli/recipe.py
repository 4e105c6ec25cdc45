"""`vgf recipe`: the paper's protocol for language models, on TL;DR or HH."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from . import COMMANDS


def main(words: list[str]) -> int:
    from ..runs.flags import add_flags, given, in_flags
    from ..support.files import check_writable, write_atomically
    from ..support.parser import Parser
    from ..support.settings_tree import override
    from ..support.tables import format_table
    from ..support.toml import read_toml
    from ..text.judging import OPENAI, load_judge, paired
    from ..text.recipes import RECIPES, Plan, run_recipe
    from ..text.settings import AlignSettings
    from .judge import _as_dict, _paired_row, _row

    parser = Parser(
        prog="vgf recipe",
        usage="vgf recipe {tldr,hh} --model MODEL --out FOLDER --judge JUDGE [flags]",
        description=COMMANDS["recipe"],
        epilog="Supervised training, rewards and DPO by trl; best-of-N and VGF at every budget; "
        "judged against the references. A stopped job goes on. The flags of vgf align set VGF's.",
    )
    parser.add_argument("recipe", choices=sorted(RECIPES), help="the task")
    parser.add_argument("--model", required=True, help="pretrained, a folder or a name")
    parser.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="of the results")
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        type=Path,
        help="with train.jsonl, test.jsonl and perhaps sft.jsonl; default: the published sets",
    )
    parser.add_argument(
        "--judge",
        metavar="JUDGE",
        action="append",
        required=True,
        dest="judges",
        help="as of vgf judge; may be given several times",
    )
    parser.add_argument("--judge-url", metavar="URL", help="of openai:MODEL")
    parser.add_argument("--judge-calls", metavar="N", type=int, help="requests at most")
    plan = Plan()
    for name, kind, text in (
        ("rows", int, "of each part of the data; default: all"),
        ("prompts", int, "of the test"),
        ("epochs", int, "of supervised training and rewards"),
        ("steps", int, "of each training at most; default: no limit"),
        ("batch", int, "sequences of a training step"),
        ("learning_rate", float, "of supervised training"),
        ("beta", float, "DPO's"),
    ):
        default = getattr(plan, name)
        flag = f"--train-{name.replace('_', '-')}"
        parser.add_argument(
            "--prompts" if name == "prompts" else flag,
            dest=f"plan_{name}",
            metavar="N" if kind is int else "X",
            type=kind,
            default=default,
            help=text if default is None else f"{text} [{default}]",
        )
    start = AlignSettings()
    flags = add_flags(parser, ("",), shown={}, config=start)
    args = parser.parse_args(words)
    file = read_toml(args.config) if args.config is not None else {}
    with in_flags(flags):
        settings = override(override(start, file, str(args.config)), given(args, start), "flags")
    chosen = dataclasses.replace(
        plan,
        seed=settings.seed,
        **{
            one.name: getattr(args, f"plan_{one.name}")
            for one in dataclasses.fields(Plan)
            if one.name != "seed"
        },
    )
    check_writable(args.out.parent)
    recipe = RECIPES[args.recipe]
    asked = {"url": args.judge_url, "calls": args.judge_calls, "question": recipe.question}
    judges = {
        place: load_judge(place, **(asked if place.startswith(OPENAI) else {}))
        for place in args.judges
    }
    verdicts = run_recipe(recipe, args.model, args.out, judges, args.data, chosen, settings)
    tests = paired(verdicts)
    rows = [*map(_as_dict, verdicts), *map(dataclasses.asdict, tests)]
    write_atomically(args.out / "verdicts.json", json.dumps(rows, indent=2, allow_nan=False) + "\n")
    print(f"against the references, {verdicts[0].prompts} prompts")
    print(format_table(list(map(_row, verdicts))))
    print("\ndifferences between methods, by the sign test over prompts")
    print(format_table(list(map(_paired_row, tests))))
    return 0
