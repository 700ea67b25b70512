"""Trained networks as C99 code with 8-bit integers, for microcontrollers."""
