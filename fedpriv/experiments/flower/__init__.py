"""Flower, to compare with: ``environment`` installs it apart, and runs ``round.py`` there."""
