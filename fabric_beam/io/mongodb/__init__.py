"""`mongodb:` written and read: `sink.py`, `source.py`, and what they are made of."""
