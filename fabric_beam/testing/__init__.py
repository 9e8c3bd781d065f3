"""For tests, ours and yours: make batches, run transforms on them, and check that a new class keeps the rules."""

from fabric_beam.testing.batches import batch as batch
from fabric_beam.testing.batches import collect as collect
from fabric_beam.testing.batches import collect_with_dead_letters as collect_with_dead_letters
from fabric_beam.testing.batches import run as run
