"""Policies of others brought in as run folders, and runs taken out to a robot."""
