"""A process that works when it is told to, and sleeps when it is not.

Run as a file, in whatever Python the code to be timed needs; it imports the standard library alone.
A request is a line of JSON on standard input, its answer one on standard output:

    {"do": "start", "module": PATH or NAME, "options": {...}}   makes module.start(**options)
    {"do": "run", "count": n}     its run(n), timed: {"seconds": ..., "idle": CPU seconds before}
    {"do": "about"}                               its describe(), as it is now
    {"do": "memory"}              the peak, in bytes: {"host": ..., "device": ... or null}

What is started has run(count), which returns when all is computed; describe(), a dict that JSON
can hold; and device_memory(). A request that fails is answered by {"error": ...}, with
{"missing": PACKAGE} where a package is not installed and {"refused": true} where the message is
for people. The end of the input is the end of the process.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import time
import traceback
from typing import Any


def load(place: str) -> Any:
    """A module by its name, or out of a file."""
    if not place.endswith(".py"):
        return importlib.import_module(place)
    name = os.path.splitext(os.path.basename(place))[0]
    spec = importlib.util.spec_from_file_location(name, place)
    if spec is None or spec.loader is None:
        raise ImportError(f"{place} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def process_memory(key: str) -> int:
    """Bytes of this process by a name of /proc/self/status: VmRSS, or VmHWM, its peak; on Linux."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(f"{key}:"))


def peak_memory() -> int:
    """The most memory that this process has held, in bytes.

    Linux says it of this program alone; the count that is portable starts at the parent's.
    """
    try:
        return process_memory("VmHWM")
    except (OSError, StopIteration):
        import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


class Server:
    """Answers requests about what it has started."""

    def __init__(self) -> None:
        self.subject: Any = None
        self.rested = time.process_time()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request, or the error."""
        try:
            return self._answer(request)
        except ModuleNotFoundError as error:
            return {"error": str(error), "missing": error.name}
        except Exception as error:
            refused = any(kind.__name__ == "VGFError" for kind in type(error).__mro__)
            traceback.print_exc()
            text = str(error) if refused else f"{type(error).__name__}: {error}"
            return {"error": text, "refused": refused}

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["do"] == "start":
            self.subject = load(request["module"]).start(**request["options"])
            return dict(self.subject.describe())
        if request["do"] == "about":
            return dict(self.subject.describe())
        if request["do"] == "memory":
            return {"host": peak_memory(), "device": self.subject.device_memory()}
        idle = time.process_time() - self.rested
        start = time.perf_counter()
        self.subject.run(request["count"])
        seconds = time.perf_counter() - start
        self.rested = time.process_time()
        return {"seconds": seconds, "idle": idle}


def main() -> None:
    """Answer until the input ends."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not be taken for an answer
    server = Server()
    for line in sys.stdin:
        channel.write(json.dumps(server.answer(json.loads(line))) + "\n")
        channel.flush()


if __name__ == "__main__":
    # the folder of this file holds our modules, not those of the code to be timed
    sys.path[:] = [
        place for place in sys.path if place != os.path.dirname(os.path.abspath(__file__))
    ]
    main()
