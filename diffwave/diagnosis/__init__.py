"""What is wrong with a model or its data, and how is that measured?"""
