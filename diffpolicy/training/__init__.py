"""Training: from a store of demonstrations to a checkpoint."""
