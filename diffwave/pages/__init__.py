"""How do pages and pictures look?"""
