"""What is in a run folder, and how is it read safely?"""
