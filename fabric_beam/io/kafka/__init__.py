"""`kafka:` read and written: `source.py` and `sink.py`, and what they are made of."""
