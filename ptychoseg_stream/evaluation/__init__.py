"""Figures of merit, baselines and the report."""
