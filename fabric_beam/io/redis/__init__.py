"""`redis:` written and read: `sink.py` and `source.py`, and what they are made of."""
