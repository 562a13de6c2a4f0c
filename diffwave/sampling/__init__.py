"""How does noise become latents?"""
