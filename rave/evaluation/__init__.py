"""How far is audio from other audio?"""
