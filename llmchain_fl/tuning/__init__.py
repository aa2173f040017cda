"""Search for settings, on public or generated records only."""
