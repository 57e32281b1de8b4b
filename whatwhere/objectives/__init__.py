"""Equations that more than one model uses."""
