"""How does a file appear whole or not at all?"""
