"""The diary's experiments, each once with its faulty model and once with ours. The product needs none of it."""
