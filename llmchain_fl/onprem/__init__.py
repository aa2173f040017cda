"""On premises: kits, keys, certificates, the roster; what a site checks before it joins.

Nothing here runs in a round, and nothing here is imported by what does (``client/``, ``llmchain_fl/core/``).
"""
