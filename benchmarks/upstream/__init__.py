"""How does acids-rave compute the same? Its environment, its models, and what differs."""
