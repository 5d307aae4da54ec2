import torch

from bequest.hypersphere.augmentation import Augmentation


def test_shares_of_a_batch_are_augmented_as_the_whole():
    x = torch.randn(8, 3, 16, 16)
    augment = Augmentation(("crop", "flip"), (3, 16, 16))
    whole = augment(x, 5, slice(0, 8), 8)
    parts = [augment(x[part], 5, part, 8) for part in (slice(0, 4), slice(4, 8))]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(augment(x, 6, slice(0, 8), 8), whole)


def test_flips_and_crops_are_what_they_are_called():
    x = torch.arange(1.0, 257).reshape(1, 1, 16, 16).repeat(64, 1, 1, 1)
    flipped = Augmentation(("flip",), (1, 16, 16))(x, 0, slice(0, 64), 64)
    turned = [torch.equal(image, x[0].flip(2)) for image in flipped]
    assert 16 < sum(turned) < 48
    assert all(t or torch.equal(image, x[0]) for t, image in zip(turned, flipped, strict=True))
    padded = torch.nn.functional.pad(x[0], (2, 2, 2, 2))
    windows = padded.unfold(1, 16, 1).unfold(2, 16, 1).reshape(-1, 16, 16)
    cropped = Augmentation(("crop",), (1, 16, 16))(x, 0, slice(0, 64), 64)
    found = [(windows == image[0]).all((1, 2)).nonzero().flatten().tolist() for image in cropped]
    assert all(len(where) == 1 for where in found)
    assert len({where[0] for where in found}) > 10


def test_nothing_asked_for_is_nothing_done_and_random_states_stay():
    x = torch.randn(4, 3, 8, 8)
    state = torch.get_rng_state()
    assert Augmentation((), (3, 8, 8))(x, 0, slice(0, 4), 4) is x
    Augmentation(("crop",), (3, 8, 8))(x, 0, slice(0, 4), 4)
    assert torch.equal(torch.get_rng_state(), state)
