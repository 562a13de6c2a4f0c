"""How does an audio file become an array, and back?"""
