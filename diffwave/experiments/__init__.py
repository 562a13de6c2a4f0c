"""The diary's experiments, with its faulty model and with ours. The product needs none of it."""
