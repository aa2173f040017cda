"""Use from Python: a run over data in memory, its result, an adapter's labels with transformers and peft alone."""
