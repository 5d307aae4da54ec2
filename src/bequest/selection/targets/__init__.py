"""What the pruned network as a whole is to reach."""
