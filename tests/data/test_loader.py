import threading
import time

import numpy as np
import pytest
import torch

from bequest.data import ImageLoader, Preprocessing
from bequest.errors import DataError, UsageError

PREPROCESSING = Preprocessing((0.0,), (1 / 255,), (1, 2, 2))


class Counted:
    """Image i has every pixel i and label i; reads are recorded."""

    classes: tuple[str, ...] | None = None

    def __init__(self, count, broken=None):
        self.count, self.broken, self.read, self.threads = count, broken, set(), set()

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index == self.broken:
            raise DataError(f"image {index} is broken")
        self.read.add(index)
        self.threads.add(threading.current_thread())
        return np.full((2, 2, 1), index, dtype=np.uint8), index


def loader(count=23, **options):
    return ImageLoader(Counted(count), PREPROCESSING, batch_size=5, **options)


def labels(batches):
    return [int(label) for _, y in batches for label in y]


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_batches_come_whole_in_order_and_again(workers):
    images = loader(workers=workers)
    for _ in range(2):
        batches = list(images)
        assert [len(y) for _, y in batches] == [5, 5, 5, 5, 3]
        assert labels(batches) == list(range(23))
        assert all(torch.equal(x[:, 0, 0, 0].round().long(), y) for x, y in batches)
    assert (len(images), len(images.dataset), images.count) == (5, 23, 23)
    assert batches[0][0].dtype == torch.float32
    assert batches[0][1].dtype == torch.int64


def test_decoding_runs_ahead_but_not_away():
    images = loader(count=60, workers=2)
    batches = iter(images)
    next(batches)
    deadline = time.monotonic() + 10
    while len(images.dataset.read) < 15 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert images.dataset.read == set(range(15))  # the batch given and two more
    assert threading.main_thread() not in images.dataset.threads
    batches.close()


def test_leaving_early_ends_the_threads():
    before = threading.active_count()
    for _ in loader(workers=3):
        break
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_subsets_are_relative_and_disjoint():
    images = loader()
    first, second = images.subset(0, 11), images.subset(11, 23)
    assert labels(first) + labels(second) == list(range(23))
    assert labels(second.subset(2, 4)) == [13, 14]
    assert labels(second.subset(10, 99)) == [21, 22]
    for start, stop in ((5, 5), (7, 3), (-1, 2), (23, 24)):
        with pytest.raises(UsageError):
            images.subset(start, stop)


def test_an_error_in_a_thread_reaches_the_caller_after_the_good_batches():
    images = ImageLoader(Counted(23, broken=12), PREPROCESSING, batch_size=5)
    given: list[tuple[torch.Tensor, torch.Tensor]] = []
    with pytest.raises(DataError, match="image 12 is broken"):
        given.extend(images)
    assert labels(given) == list(range(10))


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"workers": 0}, {"start": 9}, {"stop": 0}])
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError):
        ImageLoader(Counted(9), PREPROCESSING, **wrong)
