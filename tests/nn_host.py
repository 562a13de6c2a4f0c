"""What nn~ does with a module, from its interface: checks at loading, blocks through a method."""

import copy
import json
from functools import lru_cache
from itertools import product
from pathlib import Path

import torch

# What nn~ 1.6.0 makes of the text of a value, by the type that a module states. A number that is
# sent to nn~ is the text of a float, which is no false boolean: "0.000000".
PARSERS = {
    0: lambda text: text not in ("0", "false"),
    1: lambda text: int(float(text)),
    2: float,
}
# The operators of exports, as torch 2.5.1 (nn~ 1.6.0's) knows them: printed there by
#   for schema in torch._C._jit_get_all_schemas(): print(schema)
# and cut down to what exports use.
OPERATORS = Path(__file__).parent / "golden" / "operators_of_torch_2.5.1.json"
NO_SCHEMA = "(no schema)"


@lru_cache(maxsize=4)
def _loaded(path, _written_ns):
    return torch.jit.load(path).eval()


def loaded(path):
    """Return the module of a file as it is just after loading.

    A file is loaded once, and what is returned is a copy of that: it shares what torch compiles in
    the first runs, which takes most of the time, but no state.
    """
    return copy.deepcopy(_loaded(str(path), path.stat().st_mtime_ns))


def unknown_operators(path):
    """Return the operators of a file that torch 2.5.1 has not, or not with these arguments."""
    known, found, methods = set(json.loads(OPERATORS.read_text())), set(), {}
    for part in loaded(path).modules():
        for name in part._c._method_names():
            method = part._c._get_method(name)
            methods[str(part._c._type()), name] = method.graph
    for graph in methods.values():
        if "prim::CallFunction" in str(graph):
            graph = graph.copy()
            torch._C._jit_pass_inline(graph)  # a function is in no module
        blocks = [graph]
        while blocks:
            for node in blocks.pop().nodes():
                found.add(node.schema())
                if node.schema() == NO_SCHEMA:  # an operator has no blocks
                    blocks.extend(node.blocks())
    return found - known - {NO_SCHEMA}


class Host:
    """A host that has loaded a file, and asks of it what nn~ asks."""

    def __init__(self, path):
        self.path, self.module = path, loaded(path)
        self.methods = self.module.get_methods()
        self.params = {}
        for name in self.methods:
            params = getattr(self.module, f"{name}_params")
            assert params.dtype == torch.int64
            assert params.shape == (4,)
            self.params[name] = params.tolist()
        self.codes = {}
        for name in self.module.get_attributes():
            (self.codes[name],) = getattr(self.module, f"{name}_params").tolist()
            value = getattr(self.module, f"get_{name}")()
            assert isinstance(value, (list, tuple))
            assert [type(item) for item in value] == [(bool, int, float)[self.codes[name]]]
        assert self.module.get_buffer_attributes() == []
        assert self.module.is_buffer_empty("none")
        self.sample_rate_hz = self.module.get_sample_rate()
        assert self.module.set_sample_rate(self.sample_rate_hz) == 0
        highest = max(max(params[1], params[3]) for params in self.params.values())
        self.block_samples = 1 << (highest - 1).bit_length()

    def get(self, name):
        """Return the value of an attribute."""
        return getattr(self.module, f"get_{name}")()[0]

    def set(self, name, value):
        """Send a number to an attribute, by way of text; return whether it is taken."""
        parse = PARSERS[self.codes[name]]
        return getattr(self.module, f"set_{name}")(parse(f"{value:f}")) == 0

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


# Methods whose parts are others': playing one leaves the other where it is.
APART = {frozenset(pair) for pair in (("encode", "decode"), ("encode", "sample"))}
APART |= {frozenset(("prior", name)) for name in ("encode", "decode", "forward")}


def check_methods_in_turn(path):
    """Check that each method, after each other, gives what it gives in a file just loaded.

    Back at the first, it goes on where it was if the other used none of its parts, without reset.
    """
    host = Host(path)
    late = max(host.get(name) for name in host.codes if name.endswith("latency"))
    hop, halves, wanted = host.block_samples, {}, {}
    for name in host.methods:
        shape = 1, host.params[name][0], (late // hop + 4) * hop * 2
        halves[name] = torch.randn(shape, generator=torch.Generator().manual_seed(0)).chunk(2, 2)
        alone, other = Host(path), Host(path)
        wanted[name, "first"], wanted[name, "on"] = (
            alone.play(name, half, 8 * hop) for half in halves[name]
        )
        wanted[name, "anew"] = other.play(name, halves[name][1], 8 * hop)
    for name, other, is_reset in product(host.methods, host.methods, (0, 1)):
        if name == other:
            continue
        host.set("reset", 1)
        host.play(name, halves[name][0], 8 * hop)
        host.set("reset", is_reset)
        found = {(other, "first"): host.play(other, halves[other][0], 8 * hop)}
        goes_on = frozenset((name, other)) in APART and not is_reset
        again = name, "on" if goes_on else "anew"
        found[again] = host.play(name, halves[name][1], 8 * hop)
        for key, audio in found.items():
            assert wanted[key].abs().max() > 0
            assert audio.isfinite().all()
            assert (audio - wanted[key]).abs().max() <= 1e-5 * wanted[key].abs().max(), key


def check_switches(host):
    """Check that each attribute that is a switch goes on and off by the numbers 1 and 0."""
    switches = [name for name in host.codes if name.startswith(("follow_", "learn_"))]
    assert switches
    for name in switches:
        for value in (0, 1, 0, 1):
            assert host.set(name, value)
            assert host.get(name) == value
