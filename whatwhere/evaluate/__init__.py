"""Judging: measures, probes, pictures and tables, the same for every method."""
