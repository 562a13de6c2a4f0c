"""How are many files processed, and which are left to do?"""
