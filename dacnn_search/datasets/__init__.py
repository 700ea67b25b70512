"""Data sets as they lie on disk: the published ones, and the user's own."""
