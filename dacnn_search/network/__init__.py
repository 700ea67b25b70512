"""Networks: their description, cost, drawing and torch modules, and those of the paper by name."""
