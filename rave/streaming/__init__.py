"""How does a codec run live in a host?"""
