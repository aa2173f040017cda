"""Feedback of people at the site: kept, consented to, judged person by person, frozen into a file that a stage reads.

Nothing of it leaves the site but as training under the ledger; nothing that trains imports it: an edition is a file.
"""
