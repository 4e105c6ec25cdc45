"""Which check catches which planted mistake.

    python -m validation.mistakes

Plants every named mistake of `vgf.testing.VARIANTS` in torch and in JAX, runs every equation that
could notice, and writes validation/results/mistakes.md: the mistake, the check that must catch it,
and all the checks that did. Exits with status 1 if one goes unnoticed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vgf.backends import available_backends, get_backend
from vgf.backends.base import Backend
from vgf.testing import EQUATIONS, VARIANTS, Mismatch, Variant, check

from .record import RESULTS, environment, markdown_table, write


def caught_by(variant: Variant, backend: Backend, names: list[str], examples: int) -> list[str]:
    """The equations whose check notices a mistake."""
    planted = variant.plant(backend)
    found = []
    for name in names:
        # the check that must catch it searches as long as the tests do
        tries = 200 if name == variant.equation else examples
        try:
            check(planted, name, tries, shrink=False)
        except Mismatch:
            found.append(name)
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m validation.mistakes", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--examples", type=int, default=20, help="of each equation (default 20)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    args = parser.parse_args(argv)
    rows, missed = [], 0
    # JAX compiles for every check, so only the check that must catch it is run there
    backends = [get_backend(n, dtype="float64") for n in available_backends() if n != "numpy"]
    for number, variant in enumerate(VARIANTS.values(), 1):
        caught = {
            b.name: caught_by(
                variant,
                b,
                list(EQUATIONS) if b.name == "torch" else [variant.equation],
                args.examples,
            )
            for b in backends
        }
        good = all(variant.equation in names for names in caught.values())
        missed += not good
        on = ", ".join(name for name, names in caught.items() if variant.equation in names)
        also = [n for n in caught.get("torch", []) if n != variant.equation]
        must, verdict = f"`{variant.equation}`", on or "NOT CAUGHT"
        rows.append((number, variant.name, variant.says, must, verdict, ", ".join(also)))
        print(f"{number:3} {variant.name:36} {variant.equation:26} {verdict}", flush=True)
    where = environment()
    used = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    header = (
        "",
        "mistake",
        "what is wrong",
        "the check that must catch it",
        "caught on",
        "also caught by (torch)",
    )
    text = [
        "# Planted mistakes",
        "",
        f"Made by `python -m validation.mistakes --examples {args.examples}`: that number for each",
        f"check, and up to 200 for the one that must catch it. {used}.",
        f"Revision {where['revision'] or 'unknown'}.",
        "",
        "Each is planted in a backend, in float64; the check named is",
        "`tests/backends/test_parity.py::test_backend_equals_the_specification[...]` of that",
        "equation, which `tests/testing/test_planted_mistakes.py` demands to fail.",
        "",
        markdown_table(header, rows),
        "",
    ]
    write(args.out / "mistakes.md", "\n".join(text))
    print(f"{len(rows) - missed} of {len(rows)} caught; written to {args.out / 'mistakes.md'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
