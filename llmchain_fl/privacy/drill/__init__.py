"""Drills on a scratch ledger: killed processes (``kills.py``), damaged and rolled-back files (``damage.py``)."""
