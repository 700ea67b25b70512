"""What a search leaves: its ledger, front, run directory, checkpoints and trained networks."""
