"""The site, made and checked.

    python -m validation.site                      # into build/site
    python -m validation.site --pictures FOLDER    # and pictures of some pages, to look at

Needs `pip install 'vgf[docs]'`. The pages are files that any host serves, or a browser opens from a
disk; nothing is loaded from elsewhere. Links are checked always, and the pages in a browser where a
Chromium is installed. Exits with status 1 if a check finds something.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from . import checks
from .sources import ROOT, gather


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m validation.site", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "site", help="folder")
    parser.add_argument("--pictures", type=Path, help="folder of pictures of some pages")
    args = parser.parse_args(argv)
    source = args.out.with_name(f"{args.out.name}-source")
    gather(source)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-E", "-b", "html"]
    done = subprocess.run([*command, str(source), str(args.out)], cwd=ROOT, check=False)
    if done.returncode:
        return 1
    found = checks.broken(args.out)
    program = checks.browser()
    if program is None:
        print("no Chromium here: the pages were not opened in a browser")
    else:
        found += checks.seen(args.out, program, args.pictures)
    for line in found:
        print(line, file=sys.stderr)
    print(f"{len(list(args.out.rglob('*.html')))} pages in {args.out}; {len(found)} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
