"""Serving: several adapters over one base in one batch, behind HTTP and gRPC. Nothing that trains imports it."""
