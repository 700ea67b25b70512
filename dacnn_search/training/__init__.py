"""Training of one network: recipe, loop, evaluation, memory, weights."""
