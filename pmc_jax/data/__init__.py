"""Questions, prompts and training rows: what goes in."""
