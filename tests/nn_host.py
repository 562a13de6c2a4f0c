"""What nn~ does with a module, from its interface: checks at loading, blocks through a method."""

import torch


class Host:
    """A host that has loaded a file, and asks of it what nn~ asks."""

    def __init__(self, path):
        self.module = torch.jit.load(str(path)).eval()
        self.methods = self.module.get_methods()
        self.params = {}
        for name in self.methods:
            params = getattr(self.module, f"{name}_params")
            assert params.dtype == torch.int64
            assert params.shape == (4,)
            self.params[name] = params.tolist()
        for name in self.module.get_attributes():
            codes = getattr(self.module, f"{name}_params")
            value = getattr(self.module, f"get_{name}")()
            assert isinstance(value, (list, tuple))
            assert len(value) == len(codes)
            types = [(bool, int, float)[code] for code in codes]
            assert [type(item) for item in value] == types
        assert self.module.get_buffer_attributes() == []
        assert self.module.is_buffer_empty("none")
        self.sample_rate_hz = self.module.get_sample_rate()
        assert self.module.set_sample_rate(self.sample_rate_hz) == 0
        highest = max(max(params[1], params[3]) for params in self.params.values())
        self.block_samples = 1 << (highest - 1).bit_length()

    def self_test(self, name, num_samples):
        """Check shapes for batches of 1 and 4, as at the registration of a method."""
        inputs, in_ratio, outputs, out_ratio = self.params[name]
        for batch in (1, 4):
            out = getattr(self.module, name)(torch.zeros(batch, inputs, num_samples // in_ratio))
            assert out.shape == (batch, outputs, num_samples // out_ratio)
            assert out.dtype == torch.float32

    def play(self, name, signals, block_samples=None):
        """Return what comes out at the host's rate for signals (B, channels, samples)."""
        _, in_ratio, _, out_ratio = self.params[name]
        size = block_samples or self.block_samples
        blocks = []
        for start in range(0, signals.shape[2], size):
            block = signals[..., start : start + size]
            out = getattr(self.module, name)(block[..., in_ratio - 1 :: in_ratio].contiguous())
            blocks.append(out.repeat_interleave(out_ratio, 2))
        return torch.cat(blocks, 2)
