"""The paper's experiments: what they train, how it is told, and what else is shown of trained networks."""
