"""What a search space is made of: its choices, its size, its preview."""
