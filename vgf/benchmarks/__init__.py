"""Benchmarks: from a task's name to its data, its environments and its score."""
