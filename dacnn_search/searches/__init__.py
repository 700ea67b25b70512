"""What a search is made of: its state, its trials, and Ray Tune's workers, which train them."""
