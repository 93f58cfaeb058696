"""Demonstrations: the store, its windows and its normalisers."""
