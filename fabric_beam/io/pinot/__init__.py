"""`pinot:` written: `sink.py`, and what it is made of."""
