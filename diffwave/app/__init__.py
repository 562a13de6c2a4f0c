"""How does one play with the models in a browser?"""
