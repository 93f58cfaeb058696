"""Commands that bring stores in and out and look after them; none changes a store in place."""
