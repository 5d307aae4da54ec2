"""What only one thread at a time may do."""

import threading

ONE_AT_A_TIME = threading.RLock()
"""Held while a network is traced or pruned: torch.export and the modes that PyTorch counts and
records with are one for all threads."""
