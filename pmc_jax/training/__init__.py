"""Training rows in, updated parameters out."""
