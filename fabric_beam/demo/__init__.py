"""A simulated fleet's logs for one day, with incidents whose truth is known: `python -m fabric_beam.demo --help`."""
