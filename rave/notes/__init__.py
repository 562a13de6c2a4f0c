"""Which notes were played, when, and how strongly?"""
