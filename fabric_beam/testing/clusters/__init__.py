"""Real clusters on this machine, from the installed wheels, for tests and for trying things."""
