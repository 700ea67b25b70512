"""Images: published data sets, the user's own, and their splits."""
