"""For tests, ours and yours: make batches, run transforms on them, and check that a new class keeps the rules."""

from fabric_beam.testing.batches import batch as batch
from fabric_beam.testing.batches import collect as collect
from fabric_beam.testing.batches import collect_with_dead_letters as collect_with_dead_letters
from fabric_beam.testing.batches import read_all as read_all
from fabric_beam.testing.batches import run as run
from fabric_beam.testing.checks import check_sink as check_sink
from fabric_beam.testing.checks import check_source as check_source
from fabric_beam.testing.checks import check_transform as check_transform
from fabric_beam.testing.detectors import check_detector as check_detector
