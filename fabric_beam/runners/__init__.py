"""Ways to run a pipeline: one file an engine."""
