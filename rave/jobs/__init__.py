"""Who works through many files, and what is left to do?"""
