"""What an adapter does beyond its score: under edits, by who speaks, how sure, why. At a desk, on public records."""
