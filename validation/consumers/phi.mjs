// A consumer of the test vectors in JavaScript, without a library. node phi.mjs FOLDER
import { readFileSync } from "node:fs";

// One state's particles and their scores, arrays [N][d].
function phi(a, g, temperature, bandwidth) {
  const n = a.length;
  const d2 = a.map((x) => a.map((y) => x.reduce((sum, p, c) => sum + (p - y[c]) ** 2, 0)));
  const every = d2.flat().sort((p, q) => p - q);
  const median = (every[Math.floor((n * n - 1) / 2)] + every[Math.floor((n * n) / 2)]) / 2;
  const s2 = bandwidth === null ? Math.max(median / (2 * Math.log(n + 1)), 1e-12) : bandwidth ** 2;
  const score = 1 / (temperature ?? 1);
  const repel = temperature === null ? 0 : 1 / s2;
  return a.map((x, i) => x.map((_, c) => a.reduce((sum, y, j) =>
    sum + Math.exp(-d2[i][j] / (2 * s2)) * (g[j][c] * score + repel * (x[c] - y[c])), 0) / n));
}

let failed = 0;
for (const vector of JSON.parse(readFileSync(`${process.argv[2]}/phi.json`)).vectors) {
  const { a, g, temperature, bandwidth, bandwidth_gradient, kernel, kernel_guard } = vector.inputs;
  if (bandwidth_gradient || kernel !== "rbf" || kernel_guard) continue; // not in this program
  a.forEach((state, b) => {
    const mine = phi(state, g[b], temperature, bandwidth).flat();
    const expected = vector.result[b].flat();
    const error = Math.max(...mine.map((value, i) => Math.abs(value - expected[i])));
    if (!(error <= vector.tolerance.float64[""])) {
      failed += 1;
      console.log(`${vector.id} is off by ${error} and exposes ${vector.flags.join(", ")}`);
    }
  });
}
process.exit(failed ? 1 : 0);
