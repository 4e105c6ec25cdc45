"""The source distribution and the wheel: built, checked, and the wheel installed and run.

    python -m validation.distribution              # into dist/
    python -m validation.distribution --no-run     # without the run

Needs `pip install build twine check-wheel-contents`. The wheel is built from the source
distribution, installed with its extras in a fresh environment, and runs `vgf run --quick` there, in
an empty folder. Exits with the status of the first step that fails.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What may stand at the top of either; of the package itself, and of what pip writes.
PACKAGE = ("vgf", "vgf.egg-info")
PROJECT = {
    *("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "MANIFEST.in", "PKG-INFO"),
    *("README.md", "SECURITY.md", "pyproject.toml", "setup.cfg"),
}
NEEDED = ("vgf/py.typed", "vgf/spec/README.md", "vgf/runs/presets/common.toml")


def contents(path: Path) -> list[str]:
    """The names of the files in a distribution, without the folder around a source one."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            return wheel.namelist()
    with tarfile.open(path) as source:
        return [member.name.partition("/")[2] for member in source if member.isfile()]


def faults(names: list[str], wheel: bool) -> list[str]:
    """What a distribution holds that it should not, and what it lacks."""
    allowed = () if wheel else PROJECT
    strange = [
        name
        for name in names
        if name.partition("/")[0] not in PACKAGE
        and name not in allowed
        and not (wheel and name.partition("/")[0].endswith(".dist-info"))
    ]
    tests = [name for name in names if "/tests/" in f"/{name}" or "/results/" in f"/{name}"]
    lacking = [f"no {name}" for name in NEEDED if name not in names]
    return [*dict.fromkeys(strange + tests), *lacking]


def step(*words: str | Path, cwd: Path = ROOT) -> None:
    """Run a command, shown as it is typed.

    Raises:
        SystemExit: it fails, with its status.
    """
    print("$", *words, flush=True)
    done = subprocess.run([str(word) for word in words], cwd=cwd, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m validation.distribution", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder (default dist/)")
    parser.add_argument("--no-run", action="store_true", help="install nothing, run nothing")
    args = parser.parse_args(argv)
    out = args.out.absolute()
    for old in [*out.glob("vgf-*.whl"), *out.glob("vgf-*.tar.gz")]:
        old.unlink()
    step(sys.executable, "-m", "build", "--outdir", out)
    (wheel,), (source,) = out.glob("vgf-*.whl"), out.glob("vgf-*.tar.gz")
    step(sys.executable, "-m", "twine", "check", "--strict", wheel, source)
    step(sys.executable, "-m", "check_wheel_contents", wheel)
    for path in (wheel, source):
        names = contents(path)
        found = faults(names, path is wheel)
        if found:
            print(f"{path.name} has faults: {', '.join(found)}", file=sys.stderr)
            return 1
        print(f"{path.name}: {len(names)} files, {path.stat().st_size / 1e6:.2f} MB")
    if args.no_run:
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        venv.create(place / "venv", with_pip=True)
        programs = place / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
        step(programs / "python", "-m", "pip", "install", "-q", f"{wheel}[jax,envs,run]")
        step(programs / "vgf", "--version", cwd=place)
        step(programs / "vgf", "run", "--quick", "--out", "first-look", cwd=place)
        assert (place / "first-look" / "report.html").stat().st_size > 10_000
    return 0


if __name__ == "__main__":
    sys.exit(main())
