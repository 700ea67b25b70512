"""What the dashboard is made of: what it shows, figures, the pages themselves, a server."""
