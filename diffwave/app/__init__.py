"""How can one use the models in a browser?"""
