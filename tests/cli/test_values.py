"""Options' texts become values, or are refused with what was expected."""

import pytest
import torch

from bequest.cli.values import (
    parse_channel_values,
    parse_device,
    parse_names,
    parse_ratio,
    parse_ratios,
    parse_size,
    parse_tokens,
)
from bequest.errors import UsageError


def test_a_ratio_is_a_number_or_patterns_in_their_order():
    assert parse_ratio("0.5") == 0.5
    patterns = parse_ratio("layer*.conv1=0.5, fc=0.25,*=0")
    assert isinstance(patterns, dict)
    assert list(patterns.items()) == [("layer*.conv1", 0.5), ("fc", 0.25), ("*", 0.0)]


@pytest.mark.parametrize(
    "text", ["", "half", "50%", "a=", "=0.5", "a=0.5,b", "a=x", "nan", "a=inf"]
)
def test_an_unreadable_ratio_is_refused(text):
    with pytest.raises(UsageError, match=r"--ratio.*expected"):
        parse_ratio(text)


def test_a_pattern_given_twice_is_refused():
    with pytest.raises(UsageError, match="'a' is given twice"):
        parse_ratio("a=0.5,a=0.1")


def test_ratios_are_sorted_and_each_once():
    assert parse_ratios("0.5,0.3, 0.5,0") == (0.0, 0.3, 0.5)


@pytest.mark.parametrize("text", ["1", "-0.1", "0.5,1.5", "0.5,,0.7", "a"])
def test_ratios_outside_are_refused(text):
    with pytest.raises(UsageError, match="--ratios: expected numbers in"):
        parse_ratios(text)


def test_names_keep_their_order():
    assert parse_names("none, lbyl,none", "--x") == ("none", "lbyl")
    with pytest.raises(UsageError, match="--x: expected names"):
        parse_names("none,,lbyl", "--x")


def test_a_size_is_a_shape_or_a_square():
    assert parse_size("3x224x160") == (3, 224, 160)
    assert parse_size("32") == (3, 32, 32)
    assert parse_size("28", channels=1) == (1, 28, 28)
    assert parse_size("1X784") == (1, 784)


@pytest.mark.parametrize("text", ["", "0", "3x", "3x-1x2", "3x3.5", "axb", "²"])
def test_an_unreadable_size_is_refused(text):
    with pytest.raises(UsageError, match="--size: expected the shape"):
        parse_size(text)


def test_tokens_are_a_length_and_a_vocabulary():
    assert parse_tokens("64/512") == (64, 512)


@pytest.mark.parametrize("text", ["64/", "/512", "0/512", "64/0", "6/5/4", "٣/5", f"6/{10**20}"])
def test_unreadable_tokens_are_refused(text):
    with pytest.raises(UsageError, match="--size: expected LENGTH/VOCABULARY"):
        parse_tokens(text)


def test_one_value_serves_all_channels():
    assert parse_channel_values("0.5", "--mean", 3) == (0.5, 0.5, 0.5)
    assert parse_channel_values("0.1,0.2,0.3", "--mean", 3) == (0.1, 0.2, 0.3)
    with pytest.raises(UsageError, match="--mean: expected one number, or 3"):
        parse_channel_values("0.1,0.2", "--mean", 3)


def test_only_usable_devices():
    assert parse_device("cpu") == torch.device("cpu")
    for text in ("gpu", "meta", ""):
        with pytest.raises(UsageError, match="--device: expected a device that PyTorch can use"):
            parse_device(text)
