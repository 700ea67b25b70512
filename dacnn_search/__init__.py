"""Neural architecture search over weight-sharing CNNs (Deep Anchored CNNs)."""
