"""Copies of a run's released measurements for W&B, MLflow, trackio. Reads ``metrics.jsonl``; no run knows of it."""
