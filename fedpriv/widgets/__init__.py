"""Panels for notebooks, and what they show: states and actions that know no Jupyter."""
