"""How the next networks are chosen: the space as a sampler sees it, and proposals that are worth training."""
