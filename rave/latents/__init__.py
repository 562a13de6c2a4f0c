"""How are latents kept on disk, changed and blended?"""
