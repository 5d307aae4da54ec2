"""Where inputs come from: made up, written, or given."""
