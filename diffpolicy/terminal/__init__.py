"""The terminal: options and their help, suggestions for misspelt names, progress, and output."""
