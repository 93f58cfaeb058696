"""Foreign data formats, one file each.

A format reads the episodes of its files and appends each to a `DemonstrationWriter`; nothing else
needs to know it.
"""
