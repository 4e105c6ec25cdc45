"""A consumer of the test vectors in plain Python: no vgf, no NumPy. python phi.py FOLDER."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

Rows = list[list[float]]


def phi(a: Rows, g: Rows, temperature: float | None, bandwidth: float | None) -> Rows:
    """One state's particles and their scores, lists [N][d]."""
    n, every = len(a), range(len(a))
    d2 = [[math.dist(x, y) ** 2 for y in a] for x in a]
    flat = sorted(value for row in d2 for value in row)
    median = (flat[(n * n - 1) // 2] + flat[n * n // 2]) / 2
    s2 = max(median / (2 * math.log(n + 1)), 1e-12) if bandwidth is None else bandwidth**2
    score = 1 / (temperature or 1)
    repel = 0 if temperature is None else 1 / s2

    def term(i: int, j: int, c: int) -> float:
        k = math.exp(-d2[i][j] / (2 * s2))
        return k * (g[j][c] * score + repel * (a[i][c] - a[j][c])) / n

    return [[sum(term(i, j, c) for j in every) for c in range(len(a[0]))] for i in every]


failed = 0
for vector in json.loads(Path(sys.argv[1], "phi.json").read_text())["vectors"]:
    given = vector["inputs"]
    if given["bandwidth_gradient"] or given["kernel"] != "rbf" or given["kernel_guard"]:
        continue  # forms of the equation that this program does not have
    for state, expected in enumerate(vector["result"]):
        a, g = given["a"][state], given["g"][state]
        mine = phi(a, g, given["temperature"], given["bandwidth"])
        error = max(
            abs(x - expected[i][c]) for i, row in enumerate(mine) for c, x in enumerate(row)
        )
        if not error <= vector["tolerance"]["float64"][""]:
            failed += 1
            print(vector["id"], "is off by", error, "and exposes", ", ".join(vector["flags"]))
sys.exit(1 if failed else 0)
