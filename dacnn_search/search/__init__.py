"""The search: proposals, trials on Ray Tune's workers, early stopping, retraining, progress."""
