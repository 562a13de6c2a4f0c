"""In which forms does a codec leave?"""
