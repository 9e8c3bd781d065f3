"""Real servers on this machine, for tests and for trying things: each in a process and a folder of its own."""
