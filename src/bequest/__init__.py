"""bequest: smaller PyTorch networks, restored in closed form."""
