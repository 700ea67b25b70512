"""Samplers: they propose the next network."""
