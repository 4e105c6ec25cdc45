"""The `vgf` command: train, evaluate, look. Each command is a module of its own.

A command imports what it needs when it runs, so that `vgf --help` imports nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import keyword
import os
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from ..support.errors import VGFError
from ..support.interrupts import Interrupted, ending_signals, exit_status
from ..support.suggestions import did_you_mean, meant

COMMANDS = {
    "run": "train and evaluate an agent; without a flag, on the default task",
    "eval": "evaluate a checkpoint at any test budget, on any backend",
    "sweep": "many runs: tasks x methods x seeds, here or on a cluster",
    "compare": "compare methods over tasks and seeds: tables, intervals, figures",
    "import": "an agent of other code, or an exported one, as a run folder",
    "export": "a run's agent as .npz with a README, in a folder or on the Hugging Face Hub",
    "report": "make a run folder's figures and report.html again, or list runs",
    "presets": "list the paper's tasks as named settings, or show one",
    "data": "make data sets, and look at them",
    "bench": "how fast it is, compared with other code and the machine's limit",
    "check": "check your own function or method against the specification",
    "vectors": "write the specification as data: test vectors for any language",
    "align": "move a language model's responses along a reward model's gradient",
    "judge": "win rates of what align wrote, by judges of your choice",
    "recipe": "the paper's protocol for language models, on TL;DR or HH",
    "backends": "what is installed here, and what each backend can use",
}

_COMPUTING = ("run", "sweep", "eval")
# How long the threads that others started, a simulator's or an upload's, may outlive the command:
# until that is said, and from then on.
THREAD_SECONDS = 20.0, 280.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status.

    2 for a user's mistake, 128 + n where signal n stopped it: 130 for Ctrl-C, 143 for SIGTERM.
    Where `argv` is None, a process that a signal stopped ends here: torn down after an exception in
    the middle of a compiler, JAX crashes, and the status would be that of the crash.
    """
    status = _status(list(sys.argv[1:] if argv is None else argv))
    if argv is None and status > 128:
        _end(status)
    if argv is None:
        timer = threading.Timer(THREAD_SECONDS[0], _leave, [status])
        timer.daemon = True
        timer.start()
    return status


def _leave(status: int) -> None:
    """End a process that Python keeps alive for threads that do not end."""

    def left() -> str:
        return ", ".join(t.name for t in threading.enumerate() if not t.daemon and t is not own)

    own, patience = threading.main_thread(), THREAD_SECONDS[1]
    if names := left():
        complain(f"done; waiting for threads that still run, at most {patience:.0f} s: {names}")
        time.sleep(patience)
    if left():
        _end(status)


def _end(status: int) -> None:
    """End this process now, with nothing of Python's torn down."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def _status(words: list[str]) -> int:
    """What :func:`main` returns."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as by >&-
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    try:
        odd = next((word for word in words if "\0" in word), None)
        if odd is not None:  # which no shell can give, and no path can have
            raise VGFError(f"vgf: {odd!r} has a NUL character in it; leave it out")
        if not words or words[0] in ("-h", "--help"):
            _top().print_help()
            return 0
        if words[0] == "--version":
            from .. import __version__

            print(f"vgf {__version__}")
            return 0
        if words[0] not in COMMANDS:
            hint = did_you_mean(meant(words[0], COMMANDS), f"choose one of {', '.join(COMMANDS)}")
            raise VGFError(f"vgf: {words[0]} is not a command; {hint}")
        if words[0] in _COMPUTING:
            keep_compilations()
        module = f".{words[0]}{'_' * keyword.iskeyword(words[0])}"
        with ending_signals(), _plain_warnings():
            status: int = importlib.import_module(module, __name__).main(words[1:])
            sys.stdout.flush()
        return status
    except Interrupted as stop:
        complain(str(stop))
        return exit_status()
    except VGFError as error:
        complain(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        complain("stopped")
        return exit_status()
    except MemoryError:
        complain("error: out of memory; use smaller data or networks, or a machine with more")
        return 2
    except ImportError as error:  # a library that is there and cannot be loaded
        if str(error.name).partition(".")[0] == "vgf":
            raise
        reason = " ".join(str(error).split())
        complain(
            f"error: a library cannot be loaded: {reason}; install it again, or give it memory"
        )
        return 2
    except BrokenPipeError:  # the reader of a pipe went away; there is nobody left to write to
        _drop_output()
        return 1
    except OSError as error:
        if error.filename:
            complain(f"error: {error.filename}: {error.strerror}")
        elif error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF):
            _drop_output()
            complain(f"error: what this command prints cannot be written: {error.strerror}")
        elif error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN):
            complain(f"error: the system has no more: {error.strerror}; raise its limits (ulimit)")
        else:
            raise
        return 2


def complain(line: str) -> None:
    """Print a line on standard error, unless that is gone.

    What a file or an environment made part of it does not reach the terminal as a command to it.
    """
    shown = (
        one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode()
        for one in line
    )
    with contextlib.suppress(OSError):
        print("".join(shown), file=sys.stderr, flush=True)


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Show this package's own warnings as a line of text, without the place in its code."""
    package, usual = os.path.dirname(os.path.dirname(__file__)), warnings.formatwarning

    def plain(message: Warning | str, category: Any, filename: str, *rest: Any) -> str:
        if filename.startswith(package + os.sep):
            return f"warning: {message}\n"
        return usual(message, category, filename, *rest)

    warnings.formatwarning = plain  # type: ignore[assignment]
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _drop_output() -> None:
    """Write what is still to be printed nowhere; Python would fail again when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def keep_compilations() -> None:
    """Let JAX keep what it compiles for later runs, in `vgf.support.files.programs_folder`.

    Called before JAX is imported. JAX's own variables win if set.
    """
    from ..support.files import programs_folder

    place = programs_folder("jax")
    if place is None:
        return
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(place))
    # by default JAX keeps what took a second; half of a run's programs take less
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


def _top() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vgf",
        usage="vgf COMMAND [flags]",
        description="Value Gradient Flow: offline reinforcement learning without a policy network.",
        epilog="vgf COMMAND --help says more. vgf --version prints the version.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    group = parser.add_argument_group("commands")
    for name, text in COMMANDS.items():
        group.add_argument(name, help=text, nargs="?")
    return parser
