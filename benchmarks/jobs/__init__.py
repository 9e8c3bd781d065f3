"""One job, done by each of the ways that are compared: access log in, typed Parquet and per-minute counts out.

Each module runs as `python -m benchmarks.jobs.NAME INPUT OUT` and prints how many lines it read.
"""
