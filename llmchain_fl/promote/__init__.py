"""A candidate adapter against the one that is served: checks on public probes, a signed verdict, an atomic pointer."""
