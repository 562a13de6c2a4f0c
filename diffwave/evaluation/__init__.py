"""How good is the music?"""
