"""Who leaves: candidates, ranking, widths, targets."""
