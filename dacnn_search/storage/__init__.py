"""The files of a search: ledger, front, run directory, checkpoints and trained networks."""
