"""Studies: named experiments over axes, which share what stages they have in common."""
