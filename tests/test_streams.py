"""Random streams: named, independent, without state."""

from __future__ import annotations

import torch

from nasrun.streams import Streams


def test_a_stream_depends_on_seed_name_and_step():
    streams = Streams(0)
    drawn = {
        streams.key("a"),
        streams.key("a", 0),
        streams.key("a", 1),
        streams.key("b", 1),
        streams.sub("a").key("b", 1),
        Streams(1).key("a", 1),
        streams.key("a", 1, 1),
        streams.key("a", 11),
    }
    assert len(drawn) == 8
    assert streams.numpy("a", 1).random() == Streams(0).numpy("a", 1).random()
    assert streams.sub("x").sub("y") == Streams(0, "x/y/")


def test_the_default_generator_is_left_as_it_was():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with Streams(0).default("init"):
        first = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    with Streams(0).default("init"):
        assert torch.equal(torch.rand(3), first)
