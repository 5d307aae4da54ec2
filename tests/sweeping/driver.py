"""A sweep on a cluster, as a process that can be killed: ``driver.py ADDRESS JOURNAL``."""

import sys

import bequest
from tests.sweeping.networks import CELLS, small

if __name__ == "__main__":
    address, journal = sys.argv[1:]
    networks = [small(), small("wide", 16)]
    bequest.sweep(networks, **CELLS, engine="ray", address=address, journal=journal)
