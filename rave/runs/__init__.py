"""What is in a run folder, and may it be trusted?"""
