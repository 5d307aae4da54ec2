"""How networks are run: below everything else, and knowing nothing of pruning."""
