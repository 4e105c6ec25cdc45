"""Making data sets: recorded by a benchmark's oracles, or by a policy of your own."""
