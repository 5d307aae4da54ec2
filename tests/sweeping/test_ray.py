"""A sweep on two Ray nodes, of which one is killed, then the driver: it ends as if undisturbed."""

import json
import socket
import subprocess
import sys
import time

import pytest

import bequest
from bequest.errors import UsageError
from bequest.sweeping.comparison import Key
from tests.sweeping.networks import CELLS, numbers, small

ray = pytest.importorskip("ray", reason="needs the extra 'sweep'")


@pytest.fixture
def cluster():
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for(path, count, process):
    end = time.monotonic() + 300
    while lines(path) < count:
        assert process.poll() is None, "the driver ended by itself"
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_node_is_lost_then_the_driver_and_the_sweep_goes_on(cluster, tmp_path):
    other = cluster.add_node(num_cpus=1)
    path = tmp_path / "journal"
    words = [sys.executable, "-m", "tests.sweeping.driver", cluster.address, str(path)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        wait_for(path, 1 + 3, process)
        cluster.remove_node(other, allow_graceful=False)
        wait_for(path, 1 + 5, process)
    finally:
        process.kill()
        process.wait()
    assert lines(path) < 1 + 12
    before = path.read_bytes()
    networks = [small(), small("wide", 16)]

    found = bequest.sweep(networks, **CELLS, engine="ray", address=cluster.address, journal=path)

    assert not found.failures
    assert numbers(found) == numbers(bequest.sweep(networks, **CELLS, workers=1))
    assert path.read_bytes().startswith(before)
    cells = [json.loads(line)["cell"] for line in path.read_text().splitlines()[1:]]
    assert len({tuple(cell[name] for name in Key._fields) for cell in cells}) == len(cells) == 12


def test_an_address_that_does_not_answer():
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(UsageError, match=f"{address}: expected a Ray cluster that answers"):
            bequest.sweep(small(), engine="ray", address=address)
    assert time.monotonic() - start < 12
