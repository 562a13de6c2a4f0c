"""What can generation follow?"""
