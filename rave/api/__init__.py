"""What can Python code ask for? One typed function for each command of `rave`.

Modules here import torch inside functions: what can be refused without it is refused at once.
"""
