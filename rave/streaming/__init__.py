"""How does a codec play live in a host?"""
