"""A network without some of its channels: the cut, what follows from it, and a try-out."""
