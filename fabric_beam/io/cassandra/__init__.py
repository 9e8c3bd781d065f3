"""`cassandra:` read, written and looked up in: `source.py`, `sink.py`, `lookup.py`, and what they are made of."""
