"""What a run leaves beside its ledger: checkpoints, trained networks, and going on with it."""
