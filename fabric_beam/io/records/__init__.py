"""Records, as clients of stores give them, to typed tables."""
