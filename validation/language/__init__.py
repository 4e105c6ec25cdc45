"""Language models at a small scale: the paper's protocol, on a CPU."""
