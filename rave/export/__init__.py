"""In which formats is a codec exported?"""
