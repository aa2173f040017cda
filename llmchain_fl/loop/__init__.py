"""One turn of the loop from service to service: serve, take corrections, learn from them privately, promote.

Played on one machine over made-up users, with the very server, store, run, hub and gate that real sites have.
"""
