"""Layers and maps without an opinion on training."""
