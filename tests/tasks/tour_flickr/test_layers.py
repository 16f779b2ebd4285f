"""Layers of several networks, against those of torch."""

import torch

from tasks.tour_flickr import layers


def test_layers_compute_what_torch_computes_for_each_network():
    generator = torch.Generator().manual_seed(0)
    gru, linear = layers.GRU(2, 3, 4, generator, directions=2), layers.Linear(2, 3, 5, generator)
    x, lengths = torch.randn(2, 6, 5, 3, generator=generator), torch.tensor([5, 1, 3, 2, 4, 5])
    outputs, last = gru(x, torch.arange(5) < lengths[None, :, None].expand(2, -1, -1))
    for f in range(2):
        plain = torch.nn.GRU(3, 4, batch_first=True, bidirectional=True)
        for suffix, at in (("", f), ("_reverse", 2 + f)):
            values = {"weight_ih": gru.input.each[at], "weight_hh": gru.recurrent.each[at]}
            values |= {"bias_ih": gru.input_bias[at, 0], "bias_hh": gru.recurrent_bias[at, 0]}
            for name, value in values.items():
                getattr(plain, f"{name}_l0{suffix}").data.copy_(value)
        packed = torch.nn.utils.rnn.pack_padded_sequence(x[f], lengths, batch_first=True, enforce_sorted=False)
        states, ends = plain(packed)
        states, _ = torch.nn.utils.rnn.pad_packed_sequence(states, batch_first=True)
        there = (torch.arange(5) < lengths[:, None])[..., None]
        torch.testing.assert_close(outputs[f] * there, states)
        torch.testing.assert_close(last[f], ends.transpose(0, 1).flatten(1))
        expected = torch.nn.functional.linear(x[f], linear.weight.each[f], linear.bias[f, 0])
        torch.testing.assert_close(linear(x)[f], expected)
