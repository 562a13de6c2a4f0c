"""How does a diffusion model play live in a host?"""
