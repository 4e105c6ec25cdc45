"""`vgf check`: your own function or method against the specification."""

from __future__ import annotations

import ast
import dataclasses
import json
import sys
import textwrap
from pathlib import Path
from typing import Any

from ..support.errors import VGFError
from . import COMMANDS

_EPILOG = """\
exit status: 0 it agrees, 1 it differs, 2 a wrong request, 3 the check failed

tolerance: every result may be off by what rounding explains. "cancellation",
the default, also takes distances by a Gram matrix and sums taken apart, and
says what they cost in digits; "strict" takes neither; "tf32" and "bf16" are
for functions that multiply in those formats, judged in float32.

A cause is named only where the specification with that one mistake in it equals
your function on every input. What the library has no name for, a file of your
own can describe (--variants):

  from vgf.testing.variants import variant

  @variant("my kernel", "rbf_kernel", "your kernel is the rational quadratic")
  def _(b, original, x, y, sigma_squared):
      distances = b.squared_distances(x, y)
      return 1 / (1 + distances / sigma_squared[..., None, None])

A method needs a specification in NumPy beside it; update, act, propose, move
and whole trainings are compared, on torch and JAX where installed.

examples:
  vgf check mypkg.flow:phi --as phi
  vgf check svgd.py:SVGD.phi --as phi --arg theta=a --closure lnprob=score
  vgf check agent.py:Agent.target --as td_target --construct discount=0.99 \\
      --arg "batch={'rewards': r, 'masks': mask, 'next_q': q}"
  vgf check loss.py:critic_loss --as critic_loss --arg q1='q[0]' --arg q2='q[1]'
  vgf check step.py:step --as flow_step --single --constant optimiser=adam
  vgf check phi.py:phi --as phi --layout 'N B d'
  vgf check --list flow_step
  vgf check --agent mine.py:MyAgent --settings fql --set discount=0.9
  vgf check --suggest agent.py --mapping agent.toml
  vgf check --mapping agent.toml
  vgf check --method mypkg.mine:MyMethod --backend torch
  vgf check --method vgf --set budget.kernel=mypkg.mine:IMQ

in pytest, without an import:  def test_phi(vgf_check): vgf_check(my_phi, "phi")
"""


def main(words: list[str]) -> int:
    import argparse

    from ..support.extras import need
    from ..support.parser import Parser

    parser = Parser(
        prog="vgf check",
        usage="vgf check MODULE:FUNCTION --as NAME [flags]\n"
        "       vgf check --method MODULE:CLASS [flags]",
        description=COMMANDS["check"][0].upper() + COMMANDS["check"][1:] + ".",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "target", metavar="MODULE:FUNCTION", nargs="?", help="or path/to/file.py:function"
    )
    parser.add_argument("--as", dest="name", metavar="NAME", help="what it should compute")
    parser.add_argument(
        "--list", nargs="?", const="", metavar="NAME", help="what can be checked; one in detail"
    )
    call = parser.add_argument_group("how it is called; anything left out is bound by name")
    call.add_argument(
        "--arg",
        action="append",
        default=[],
        metavar="THEIRS=OURS",
        help="its argument is ours, or made of ours: h='2 * sigma_squared'",
    )
    call.add_argument(
        "--constant",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="hold an argument fixed, one of its own or of ours",
    )
    call.add_argument(
        "--closure",
        action="append",
        default=[],
        metavar="THEIRS=KIND",
        help="its argument is a function: score, value, velocity, critic, field, network",
    )
    call.add_argument(
        "--layout",
        action="append",
        default=[],
        metavar="[NAME=]AXES",
        help="order of its axes: 'N B d', or for one array or the result: a='N B d'",
    )
    call.add_argument(
        "--construct",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an argument of the class whose method, or whose instance, is checked; with --arg "
        "in its place, it is drawn, and the class made anew for every input",
    )
    call.add_argument("--single", action="store_true", help="it takes one state at a time")
    call.add_argument(
        "--returns", metavar="PART", help="part of what it returns: 0, a key, or '-result'"
    )
    call.add_argument("--framework", metavar="NAME", help="arrays it is given: numpy, torch or jax")
    call.add_argument(
        "--mapping", metavar="FILE", type=Path, help="all of this in a TOML file, or several checks"
    )
    call.add_argument(
        "--suggest",
        metavar="FILE.py",
        type=Path,
        help="list what in a file looks checkable; --mapping FILE writes it",
    )
    whole = parser.add_argument_group("a whole agent, or a whole method")
    whole.add_argument(
        "--agent",
        metavar="NAME",
        help="your agent, by a class that says how it is made: module:class or file.py:class",
    )
    whole.add_argument(
        "--settings",
        metavar="METHOD",
        help="the method whose settings are held, by an agent or --as update, act, propose, move",
    )
    whole.add_argument(
        "--starts", type=int, help="states that an agent's updates start from (default 40)"
    )
    whole.add_argument(
        "--method",
        metavar="NAME",
        help="your module:class or path/to/file.py:class, or one of ours such as fql",
    )
    whole.add_argument(
        "--backend", choices=("numpy", "torch", "jax"), help="default: torch and jax if installed"
    )
    whole.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="hold a setting at a value: budget.kernel=mypkg.mine:IMQ",
    )
    whole.add_argument(
        "--updates",
        type=int,
        help="of each training (default 100); of an agent, in a row (default 5)",
    )
    search = parser.add_argument_group("search")
    search.add_argument(
        "--examples",
        type=int,
        help="in each dtype (default 600 in float64 and 150 in float32; fewer for what is slow)",
    )
    search.add_argument("--seed", type=int, help="of the search (default 0)")
    search.add_argument("--dtype", metavar="NAME", help="float64 or float32; default both")
    search.add_argument(
        "--tolerance",
        metavar="KIND",
        help="strict, cancellation (default), tf32 or bf16; see below",
    )
    search.add_argument(
        "--sizes",
        metavar="NAME=NUMBER,...",
        help="hold B, N, d or E: N=10,d=6; default: up to 16, 32, 12 and 5",
    )
    search.add_argument(
        "--variants", metavar="FILE", type=Path, help="mistakes of your own to compare it with"
    )
    search.add_argument("--json", metavar="FILE", help="write the finding as JSON; - prints it")
    search.add_argument(
        "--schema", action="store_true", help="print the JSON Schema of what --json writes"
    )
    search.add_argument(
        "--junit", metavar="FILE", type=Path, help="write it as JUnit XML, for a CI's own report"
    )
    args = parser.parse_args(words)
    need("hypothesis", "testing")
    try:
        return _run(args, parser)
    except (VGFError, KeyboardInterrupt, BrokenPipeError):
        raise
    except Exception as error:
        import traceback

        traceback.print_exc()
        print(
            f"vgf check: the check itself failed ({type(error).__name__}); nothing is said of your "
            "function. Please report this with the lines above",
            file=sys.stderr,
        )
        return 3


def _run(args: Any, parser: Any) -> int:
    if args.schema:
        from ..checker.schema import SCHEMA

        print(json.dumps(SCHEMA, indent=1))
        return 0
    if args.list is not None:
        print(_detail(args.list) if args.list else _overview())
        return 0
    if args.suggest is not None:
        return _suggest(args)
    if args.agent is not None:
        return _check_agent(args, parser)
    if args.method is not None:
        return _check_method(args, parser)
    if given := [f"--{name}" for name in ("backend", "updates", "starts") if getattr(args, name)]:
        raise VGFError(f"vgf check: {given[0]} belongs to --method or --agent")
    if args.set and not args.settings:
        raise VGFError("vgf check: --set belongs to --method, --agent or --settings")
    if not args.target and args.mapping:
        return _check_all(args)
    if not args.target:
        raise VGFError(
            "vgf check: name a function, as MODULE:FUNCTION or path/to/file.py:function, or a "
            "method with --method"
        )
    return _check(args)


def _suggest(args: Any) -> int:
    from ..checker.suggest import as_toml, suggest
    from ..support.files import write_atomically

    found = suggest(args.suggest)
    if not found:
        print(f"{args.suggest}: nothing in it has a name that the specification knows")
        return 0
    print("\n".join(map(str, found)))
    if any(s.name == "update" for s in found):
        print("an agent goes through whole with --agent: a class that says how it is made")
    if args.mapping:
        write_atomically(str(args.mapping), as_toml(found))
        print(f"written to {args.mapping}; vgf check --mapping {args.mapping} runs it")
    return 0


def _check_all(args: Any) -> int:
    """Every check of a file of them."""
    from ..checker.checking import as_json
    from ..support.files import write_atomically
    from ..support.toml import read_toml

    checks = read_toml(args.mapping).get("check")
    if not isinstance(checks, list) or not all(isinstance(c, dict) for c in checks):
        raise VGFError(
            f"{args.mapping}: name a function, or write a [[check]] with its target for each"
        )
    results = []
    for entry in checks:
        own = dict(entry)
        if own.pop("skip", False):
            continue
        target = own.pop("target", None)
        if not isinstance(target, str):
            raise VGFError(f"{args.mapping}: a [[check]] needs target = 'module:function'")
        construct = own.pop("construct", {})
        mapping = _adapter_of(own, args.mapping)
        results.append((target, mapping[1], _checked(args, target, mapping, construct)))
        print(results[-1][2].line if args.json != "-" else "", end="\n" if args.json != "-" else "")
    if args.junit:
        from ..checker.junit import junit

        write_atomically(str(args.junit), junit([(t, str(n), r) for t, n, r in results]))
    text = as_json([r for *_, r in results])
    if args.json == "-":
        print(text, end="")
    elif args.json:
        write_atomically(args.json, text)
    return 0 if all(r.agrees for *_, r in results) else 1


_OF_AGENT = ("agent", "settings", "set", "starts", "updates", "seed", "json", "junit")


def _check_agent(args: Any, parser: Any) -> int:
    from ..checker.agents import STARTS, UPDATES, check_agent

    _only(args, parser, _OF_AGENT, "--agent")
    if args.settings is None:
        raise VGFError("vgf check: say which method your agent is with --settings, as in fql")
    result = check_agent(
        args.agent,
        args.settings,
        {k: _literal(v) for k, v in _pairs("--set", args.set).items()},
        starts=STARTS if args.starts is None else args.starts,
        updates=UPDATES if args.updates is None else args.updates,
        seed=args.seed or 0,
    )
    return _report(result, json.dumps(result.as_dict(), indent=1) + "\n", args)


def _only(args: Any, parser: Any, known: tuple[str, ...], flag: str) -> None:
    """Refuse flags that say nothing to a kind of check."""
    for name, value in vars(args).items():
        if name not in known and value != parser.get_default(name):
            word = {"target": args.target, "name": "--as"}.get(name, f"--{name}")
            raise VGFError(f"vgf check: {word} belongs to a function, not to {flag}")


_OF_METHOD = ("method", "backend", "set", "updates", "examples", "seed", "dtype", "json", "junit")


def _check_method(args: Any, parser: Any) -> int:
    from ..testing.methods import EXAMPLES, UPDATES, MethodMismatch, check_method

    _only(args, parser, _OF_METHOD, "--method")
    try:
        result = check_method(
            args.method,
            None if args.backend is None else [args.backend],
            settings={k: _literal(v) for k, v in _pairs("--set", args.set).items()},
            examples=EXAMPLES if args.examples is None else args.examples,
            seed=args.seed or 0,
            updates=UPDATES if args.updates is None else args.updates,
            dtype=args.dtype,
        )
    except MethodMismatch as mismatch:
        result = mismatch.result
    return _report(result, json.dumps(result.as_dict(), indent=1) + "\n", args)


def _report(result: Any, as_json: str, args: Any) -> int:
    """Print a result and write its JSON to a file, or print the JSON; returns the exit status."""
    from ..support.files import write_atomically

    file = args.json
    if args.junit:
        from ..checker.junit import junit

        name = args.target or args.method or args.agent
        kind = args.name or ("agent" if args.agent else "method")
        write_atomically(str(args.junit), junit([(name, kind, result)]))

    if file == "-":
        print(as_json, end="")
    else:
        print(result)
        if file:
            write_atomically(file, as_json)
    sys.stdout.flush()
    return 0 if result.agrees else 1


def _check(args: Any) -> int:
    from ..checker.checking import as_json

    construct = {k: _literal(v) for k, v in _pairs("--construct", args.construct).items()}
    result = _checked(args, args.target, _mapping(args.mapping), construct)
    return _report(result, as_json([result]), args)


def _checked(args: Any, target: str, mapping: Any, construct: dict[str, Any]) -> Any:
    """One function checked: by a file's declarations, and those of the flags."""
    from ..checker.checking import check_function
    from ..checker.loading import load_checked, load_variants
    from ..checker.subjects import find_subject

    adapter, name, options = mapping
    name = args.name or name
    if name is None:
        raise VGFError("vgf check: say what it should compute with --as NAME; --list names them")
    subject = find_subject(name)
    adapter = _adapter(args, adapter)
    function = load_checked(target, construct, "params" in subject.parameters, adapter.arguments)
    return check_function(
        function,
        name,
        adapter,
        dtype=args.dtype,
        examples=options.get("examples") if args.examples is None else args.examples,
        seed=options.get("seed", 0) if args.seed is None else args.seed,
        label=target,
        tolerance=args.tolerance or options.get("tolerance", "cancellation"),
        sizes=_sizes(args.sizes) or options.get("sizes"),
        variants=load_variants(args.variants) if args.variants else (),
        settings=_held(args),
    )


def _held(args: Any) -> Any:
    """The settings to hold, where a method's are named."""
    if args.settings is None:
        return None
    from ..testing.methods import small_settings

    changes = {k: _literal(v) for k, v in _pairs("--set", args.set).items()}
    return small_settings(args.settings, changes)


def _sizes(text: str | None) -> dict[str, int]:
    found = {}
    for part in filter(None, (text or "").split(",")):
        name, equals, value = part.partition("=")
        if not equals or not value.strip().isdigit():
            raise VGFError(f"--sizes {text}: write --sizes N=10,d=6")
        found[name.strip()] = int(value)
    return found


def _adapter(args: Any, base: Any) -> Any:
    """The declarations of a file, overridden by those of the flags."""
    layout = dict(base.layout)
    for text in args.layout:
        name, equals, axes = text.rpartition("=")
        layout[name if equals else ""] = axes
    constants = {k: _literal(v) for k, v in _pairs("--constant", args.constant).items()}
    return dataclasses.replace(
        base,
        arguments={**base.arguments, **_pairs("--arg", args.arg)},
        constants={**base.constants, **constants},
        closures={**base.closures, **_pairs("--closure", args.closure)},
        layout=layout,
        single=args.single or base.single,
        returns=base.returns if args.returns is None else args.returns,
        framework=args.framework or base.framework,
    )


def _pairs(flag: str, texts: list[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise VGFError(f"{flag} {text}: write {flag} NAME=VALUE")
        pairs[name.strip()] = value.strip()
    return pairs


def _literal(text: str) -> Any:
    """A number, None, True, a tuple; anything else is a word."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"none": None, "true": True, "false": False}.get(text.lower(), text)


_KEYS = (
    "as",
    "arguments",
    "constants",
    "closures",
    "layout",
    "single",
    "returns",
    "framework",
    "examples",
    "seed",
    "tolerance",
    "sizes",
)


def _mapping(path: Path | None) -> tuple[Any, str | None, dict[str, Any]]:
    """An adapter from a TOML file, what the function is checked as, and the search's settings."""
    from ..checker.adapter import Adapter
    from ..support.toml import read_toml

    return (Adapter(), None, {}) if path is None else _adapter_of(read_toml(path), path)


def _adapter_of(found: dict[str, Any], path: Path) -> tuple[Any, str | None, dict[str, Any]]:
    """One check's declarations."""
    from ..checker.adapter import Adapter
    from ..support.suggestions import nearest

    if "check" in found:
        raise VGFError(f"{path} holds several checks: leave the function out to run them all")
    for key in found:
        if key not in _KEYS:
            near = nearest(key, _KEYS)
            hint = f"did you mean {near}?" if near else f"the keys are {', '.join(_KEYS)}"
            raise VGFError(f"{path}: {key} is unknown; {hint}")
    for key in ("arguments", "constants", "closures"):
        if not isinstance(found.get(key, {}), dict):
            raise VGFError(f"{path}: {key} must be a table, as in {key} = {{theirs = 'ours'}}")
    layout = found.get("layout", {})
    adapter = Adapter(
        arguments={k: str(v) for k, v in found.get("arguments", {}).items()},
        constants={k: None if v == "none" else v for k, v in found.get("constants", {}).items()},
        closures=found.get("closures", {}),
        layout={"": layout} if isinstance(layout, str) else layout,
        single=bool(found.get("single", False)),
        returns=found.get("returns"),
        framework=found.get("framework"),
    )
    options: dict[str, Any] = {k: int(found[k]) for k in ("examples", "seed") if k in found}
    options |= {k: found[k] for k in ("tolerance", "sizes") if k in found}
    return adapter, found.get("as"), options


# --- what can be checked -------------------------------------------------------------------------


def _overview() -> str:
    from ..checker.subjects import SUBJECTS

    lines = ["What can be checked (vgf check --list NAME says more):", ""]
    for subject in SUBJECTS.values():
        lines.append(f"  {subject.name}({', '.join(subject.parameters)})")
        lines.append(
            textwrap.fill(subject.summary, 80, initial_indent="      ", subsequent_indent="      ")
        )
    return "\n".join(lines)


def _detail(name: str) -> str:
    import inspect

    from .. import spec
    from ..checker.alternatives import library_for
    from ..checker.subjects import STEP_FROM_SCORE, find_subject

    subject = find_subject(name)
    lines = [f"{subject.name}({', '.join(subject.parameters)})", ""]
    lines += textwrap.dedent(inspect.getdoc(getattr(spec, subject.name)) or "").splitlines()
    lines += ["", "Arrays it is tried on, and their axes:"]
    forms = [subject] + ([STEP_FROM_SCORE] if subject.name == "flow_step" else [])
    for form in forms:
        for array, axes in form.axes.items():
            lines.append(f"  {array}: [{', '.join(axes)}]")
        if form is STEP_FROM_SCORE:
            lines.append("  (given g in place of velocity, it computes phi itself)")
    if subject.fields:
        fields = ", ".join(name.partition(".")[2] for name in subject.fields)
        lines.append(_fill(f"Your function may take the budget, or any of its fields: {fields}."))
    known = library_for(subject.name)
    lines += ["", f"What it is compared with when it differs ({len(known)} named variants):"]
    for variant in known.values():
        lines.append(_fill(f"{variant.name}: {variant.says}", "  ", "      "))
    return "\n".join(lines)


def _fill(text: str, first: str = "", rest: str = "") -> str:
    return textwrap.fill(text, 80, initial_indent=first, subsequent_indent=rest)
