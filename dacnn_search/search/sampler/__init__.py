"""What proposes the next network."""
