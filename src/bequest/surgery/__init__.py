"""What becomes of a network that loses channels."""
